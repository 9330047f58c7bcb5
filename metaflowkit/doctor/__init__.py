"""``mfk doctor``: is the meta-gradient of a pipeline correct, which of its modules are unsafe, and what does a step cost."""

from metaflowkit.doctor.diagnosis import diagnose
from metaflowkit.doctor.findings import Finding, Verdict, conclusion

__all__ = ["Finding", "Verdict", "conclusion", "diagnose"]

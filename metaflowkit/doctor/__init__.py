"""``mfk doctor``: is the meta-gradient of this very pipeline right, what is unsafe in it, and what does a step cost."""

from metaflowkit.doctor.diagnosis import diagnose
from metaflowkit.doctor.findings import Finding, Verdict, conclusion

__all__ = ["Finding", "Verdict", "conclusion", "diagnose"]

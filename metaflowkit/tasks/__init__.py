"""Tasks: from an index to an episode, pure. The import lines below are the list of what exists."""

from metaflowkit.tasks.gym import GymnasiumTasks
from metaflowkit.tasks.labelled import LabelledTasks
from metaflowkit.tasks.mislabelled import Mislabelled
from metaflowkit.tasks.navigation import Navigation
from metaflowkit.tasks.sinusoid import Sinusoid
from metaflowkit.tasks.views import Views

__all__ = ["GymnasiumTasks", "LabelledTasks", "Mislabelled", "Navigation", "Sinusoid", "Views"]

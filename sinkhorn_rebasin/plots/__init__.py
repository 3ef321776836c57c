"""Results in, matplotlib axes out; nothing is computed here.

Every function draws on the axes it is given, or on those of a new figure, and returns them; saving and
showing are the caller's.
"""

from sinkhorn_rebasin.plots.alignment import plot_history, plot_permutation
from sinkhorn_rebasin.plots.barrier_matrix import plot_barrier_matrix
from sinkhorn_rebasin.plots.connectivity import Bar, plot_barriers, plot_paths
from sinkhorn_rebasin.plots.continual import plot_accuracy_matrix, plot_average_accuracy, plot_task_accuracies
from sinkhorn_rebasin.plots.landscape import plot_plane
from sinkhorn_rebasin.plots.style import COLOURS, DASHES, HATCHES, MARKERS

__all__ = [
    "COLOURS",
    "DASHES",
    "HATCHES",
    "MARKERS",
    "Bar",
    "plot_accuracy_matrix",
    "plot_average_accuracy",
    "plot_barrier_matrix",
    "plot_barriers",
    "plot_history",
    "plot_paths",
    "plot_permutation",
    "plot_plane",
    "plot_task_accuracies",
]

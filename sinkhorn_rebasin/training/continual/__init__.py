"""Learning task after task: learners that any Lightning Trainer trains, and the loop over tasks."""

from sinkhorn_rebasin.training.continual.all_tasks import AllTasks
from sinkhorn_rebasin.training.continual.averaged_gradient import AveragedGEM
from sinkhorn_rebasin.training.continual.dark_experience_replay import DarkExperienceReplay
from sinkhorn_rebasin.training.continual.distilling_rebasin_learner import DistillingRebasinLearner
from sinkhorn_rebasin.training.continual.elastic_weight_consolidation import ElasticWeightConsolidation
from sinkhorn_rebasin.training.continual.experience_replay import ExperienceReplay
from sinkhorn_rebasin.training.continual.fine_tuning import FineTuning
from sinkhorn_rebasin.training.continual.joint_training import JointTraining
from sinkhorn_rebasin.training.continual.learner import ContinualLearner
from sinkhorn_rebasin.training.continual.learning_without_forgetting import LearningWithoutForgetting
from sinkhorn_rebasin.training.continual.loop import learn_tasks
from sinkhorn_rebasin.training.continual.memory import Replay, ReplayMemory
from sinkhorn_rebasin.training.continual.mode_connectivity_sgd import ModeConnectivitySGD
from sinkhorn_rebasin.training.continual.rebasin_learner import RebasinLearner
from sinkhorn_rebasin.training.continual.stable_sgd import StableSGD

__all__ = [
    "AllTasks",
    "AveragedGEM",
    "ContinualLearner",
    "DarkExperienceReplay",
    "DistillingRebasinLearner",
    "ElasticWeightConsolidation",
    "ExperienceReplay",
    "FineTuning",
    "JointTraining",
    "LearningWithoutForgetting",
    "ModeConnectivitySGD",
    "RebasinLearner",
    "Replay",
    "ReplayMemory",
    "StableSGD",
    "learn_tasks",
]

"""Networks of random blocks in random order with random wiring, told in full by a short plan."""

from tests.random_networks.network import Network, build, inputs_of
from tests.random_networks.plan import Block, Plan
from tests.random_networks.strategy import alone, plans, random_plan

__all__ = ["Block", "Network", "Plan", "alone", "build", "inputs_of", "plans", "random_plan"]

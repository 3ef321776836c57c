"""Ensembles that packages bring, as problems: ANI-1x and SpliceAI, without labels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from experiments.real_networks.network import folder_of
from experiments.real_networks.spliceai import MEMBERS as STRAND_MEMBERS
from experiments.real_networks.spliceai import bases, published_member
from experiments.what_pays.budget import Pool
from experiments.what_pays.problem import Problem
from experiments.what_pays.setting import Setting
from experiments.what_pays.task import ENERGIES, PROBABILITIES

STRANDS, TEST_STRANDS, PLACES = 1000, 16, 3000
SHORT = 100
"""Places of the strands that symmetries are found on, which are the same for any number of places."""


def published_problem(setting: Setting) -> Callable[[int], Problem]:
    """Return what makes the problem of a group of published networks.

    Answers are averaged over all members of the ensemble, of which the group's are merged.

    Raises:
        ImportError: the package is not there.
    """
    if setting.data == "spliceai":
        folder_of("spliceai")
        folder_of("h5py")
        return lambda group: _strands(setting, group)
    for package in ("torchani", "rdkit"):
        folder_of(package)
    return lambda group: _molecules(setting, group)


def _strands(setting: Setting, group: int) -> Problem:
    members: list[nn.Module] = [published_member(number) for number in range(1, STRAND_MEMBERS + 1)]
    networks = [members[number] for number in setting.seeds(group)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(group)
        tests, strands = bases(TEST_STRANDS, PLACES), bases(STRANDS, PLACES)
    right = PROBABILITIES.said_together(members, tests, batch=5)
    pool = Pool("SpliceAI", strands, None, example=strands[:2, :, :SHORT])
    return Problem(setting, PROBABILITIES, networks, members, pool, (tests, right), group)


def _molecules(setting: Setting, group: int) -> Problem:
    from experiments.what_pays.molecules import drawn_molecules, members_of_ani

    members = members_of_ani()
    networks = [members[number] for number in setting.seeds(group)]
    inputs, tests = drawn_molecules(seed=group)
    right = ENERGIES.said_together(members, tests)
    return Problem(setting, ENERGIES, networks, members, Pool("ANI-1x", inputs, None), (tests, right), group)

"""A plan of claims that is run in a moment."""

import dataclasses

from tf_lottery.claims import plan as plan_lib
from tf_lottery.claims.plan import Branch, ByRule, Learned, Search
from tf_lottery.runs.settings import BranchSettings, Settings, SupermaskSettings


def miniature(masks_on="mnist1d"):
    """All runs of `quick` by name; those of three claims are small enough to be run here."""
    short = {"replicates": 2, "steps": 10, "eval_every": 5, "test_every": 10}
    protocol = Search("protocol", Settings(levels=2, prune_fraction=0.6, **short).resolved())
    dense = Search("dense", Settings(levels=1, **short, dataset=masks_on).resolved())
    rule = SupermaskSettings(by="rule", criterion="all", densities=(0.5, 0.2)).resolved()
    masks = SupermaskSettings(by="learning", rescale=False, samples=2, dataset=masks_on, **short).resolved()
    made = [
        protocol,
        Branch("protocol/reinit", BranchSettings(survivors="reinit"), protocol, (1, 2)),
        dense,
        Learned("learned", masks),
        ByRule("by_rule", rule, dense),
    ]
    known = {e.name for e in made}
    others = [Search(e.name, protocol.settings) for e in plan_lib.quick().experiments if e.name not in known]
    return dataclasses.replace(plan_lib.quick(), experiments=(*made, *others))


WORKED = {"protocol", "protocol/reinit", "learned", "by_rule"}
CLAIMS = "--claim=reinit_is_worse,learned_masks_beat_rules"

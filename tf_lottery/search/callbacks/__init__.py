"""Keras callbacks for a wrapped model: the whole lottery-ticket search, gradual pruning, regrowing, and what TensorBoard is told.

What stands here, and after a colon the names that other rooms take from it:

    lottery_ticket      the whole search in one `fit`
    prune_by_schedule   gradual pruning: PruneBySchedule
    regrow_by_schedule  networks that are sparse from the start and move their masks
    by_schedule         what the two have in common: acting at certain steps
    pruning_summaries   what TensorBoard is told of the masks
    clock               the optimizer's step, and what is due at which

All of them go by `optimizer.iterations`, the number of updates: so they are right with `steps_per_execution`, gradient
accumulation and steps that loss scaling skips, and act between batches, so that nothing of them is in the compiled step.
"""

from tf_lottery.search.callbacks.lottery_ticket import LotteryTicket
from tf_lottery.search.callbacks.prune_by_schedule import PruneBySchedule
from tf_lottery.search.callbacks.pruning_summaries import PruningSummaries
from tf_lottery.search.callbacks.regrow_by_schedule import RegrowBySchedule

__all__ = ["LotteryTicket", "PruneBySchedule", "PruningSummaries", "RegrowBySchedule"]

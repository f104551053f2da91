"""The process of one contender: `turns.Contender` starts it, and tells it on standard input when it is its turn."""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

from alternatives import OnnxRuntime, PyTorch
from baselines import PlainKeras
from limits import MatrixProducts
from stage_one import Preparation, StageOne
from turns import Figures, Task

from featx.cli.streams import silent_stderr
from featx.system import hide_with


class Runner(Protocol):
    """What a contender's process runs. Its constructor warms up."""

    facts: Figures

    def turn(self, what: str) -> Figures:
        """Return the figures of a turn."""
        ...


CONTENDERS: dict[str, Callable[[Task], Runner]] = {
    "preparation": Preparation,
    "plain-keras": PlainKeras,
    "featx": StageOne,
    "onnxruntime": OnnxRuntime,
    "pytorch": PyTorch,
    "matrix-products": MatrixProducts,
}


def main() -> None:
    """Warm up, say so, and take a turn for every line that comes."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)  # whatever a library prints must not get between the answers

        def say(figures: dict[str, Any]) -> None:
            print(json.dumps(figures), file=answers, flush=True)

        task = Task(**json.loads(sys.argv[1]))
        hide_with(silent_stderr)
        runner = CONTENDERS[task.contender](task)
        say(runner.facts)
        rested_since = time.process_time()
        for line in sys.stdin:
            # A contender that goes on working out of turn would be seen here.
            idle_cpu_s = time.process_time() - rested_since
            say({**runner.turn(line.strip()), "idle_cpu_s": idle_cpu_s})
            rested_since = time.process_time()


if __name__ == "__main__":
    main()

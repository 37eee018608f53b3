"""What became of an instance, on stdout and stderr, and as an exit code."""

from __future__ import annotations

from ..base.records import Instance, Status
from .output import FAILED, complain, console, own_frames, print_json

__all__ = ["complain_of", "print_result", "report", "state_of"]


def report(instance: Instance, *, whole: bool) -> int:
    """Print the output of an instance, or all of it, and why it did not end well; return the exit code."""
    print_result(instance, whole=whole)
    if instance.status is Status.COMPLETED:
        return 0
    complain_of(instance)
    return FAILED


def print_result(instance: Instance, *, whole: bool) -> None:
    """Print the output where there is one, or the whole instance."""
    if whole:
        print_json(instance.model_dump(mode="json"))
    elif instance.status is Status.COMPLETED:
        print_json(instance.output)


def state_of(instance: Instance) -> str:
    """Return how it ended, as a part of a sentence."""
    words = {Status.CANCELLED: "was cancelled", Status.FAILED: "failed", Status.TIMED_OUT: "timed out"}
    return words.get(instance.status, f"is {instance.status.value}")


def complain_of(instance: Instance) -> None:
    """Say on stderr why it did not end well, with the user's part of the traceback."""
    error = instance.error
    sentence = f"{instance.workflow_name} instance {instance.id} {state_of(instance)}"
    if error is None:
        complain(sentence)
        return
    complain(f"{sentence}{f' at step {error.step!r}' if error.step else ''}: {error.type}: {error.message}")
    for text in (own_frames(error.traceback), error.stack, error.output, error.error_output):
        if text:
            console(stderr=True).print(text.rstrip(), style="dim", markup=False, soft_wrap=True)

"""Plant defects in the package, one at a time, and see whether the tests nearest to them notice.

``python scripts/planted_defects.py [PART ...]`` runs, in a copy of the repository, the tests beside each defect whose
file or words hold one of the parts; all by default. A defect is noticed if a test fails. Those of the layers for
PyTorch and JAX are left out where these are not installed.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, TypeAlias

from copies import PRELOADED, copy_tree, tested

ENVIRONMENT = {"MPLBACKEND": "Agg", "HCNN_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "HYPOTHESIS_PROFILE": "ci"}


Tests: TypeAlias = tuple[tuple[str, str], ...]
"""Files, each with words of the names of its tests; all without."""


class Defect(NamedTuple):
    """A text of a file, which occurs once in it, the text that is planted in its place, and the tests nearest to it."""

    what: str
    file: str
    old: str
    new: str
    tests: Tests


def of(name: str, words: str = "") -> Tests:
    """A test file of ``train``, or the tests there whose names hold some words, as pytest's -k takes them."""
    return ((f"tests/train/test_{name}.py", words),)


def of_core(name: str, words: str = "") -> Tests:
    """The same of ``hcnn_core``."""
    return ((f"tests/core/test_{name}.py", words),)


def of_tape(name: str, words: str = "") -> Tests:
    """The same of ``autodiff``."""
    return ((f"tests/autodiff/test_{name}.py", words),)


def of_torch(name: str, words: str) -> Tests:
    """The same of the layers for PyTorch."""
    return ((f"tests/frameworks/test_torch_{name}.py", words),)


def of_jax(words: str = "") -> Tests:
    """The same of JAX."""
    return (("tests/frameworks/test_jax.py", words),)


DEFECTS = (
    # Those that an earlier campaign had found nobody to notice.
    Defect(
        "a run goes on with other labels",
        "train/runs/training.py",
        "same = same and checkpoint.labels in (None, self.labels)",
        "same = same and True",
        of("command_line_runs", "other_images"),
    ),
    Defect(
        "of equal scores the last epoch is the best",
        "train/runs/training.py",
        "best = score > state.best",
        "best = score >= state.best",
        of("training", "best"),
    ),
    Defect(
        "only the first two ranks are compared",
        "train/ranks/agreement.py",
        "everyone = self.gather(dict(properties))",
        "everyone = self.gather(dict(properties))[:2]",
        of("distributed", "told_apart"),
    ),
    Defect(
        "sizes of oblong images are cut, not rounded",
        "train/recipes/schedules.py",
        "(2 * side * n + short) // (2 * short)",
        "(side * n) // short",
        of("custom_data", "oblong"),
    ),
    Defect(
        "candidates for the nearest have no margin for rounding",
        "train/attributes/nearest.py",
        "enumerate(bound + 2 * rounding)",
        "enumerate(bound + 0 * rounding)",
        of("attribute_nearest"),
    ),
    # Training.
    Defect(
        "the loss of an epoch is divided by full batches",
        "train/runs/training.py",
        '"train_loss": state.loss_sum / self.count,',
        '"train_loss": state.loss_sum / (self.steps_per_epoch * self.config.batch_size),',
        of("recipe", "mean_loss"),
    ),
    Defect(
        "a short last batch counts as a full one in evaluation",
        "train/runs/training.py",
        "loss += batch_loss * x.shape[0]",
        "loss += batch_loss * min(EVALUATION_BATCH, network.config.batch_size)",
        of("distributed", "evaluation_on_ranks") + of("training", "evaluation"),
    ),
    Defect(
        "batches of moments count alike, whatever their size",
        "train/runs/training.py",
        "share = len(part) / wanted",
        "share = 1 / batches",
        of("training", "moments"),
    ),
    Defect(
        "steps are counted anew in each epoch, for adamw",
        "train/runs/training.py",
        '"step": taken + 1,',
        '"step": state.step + 1,',
        of("optimizer") + of("training", "steps_are_counted"),
    ),
    Defect(
        "what an epoch has done already is counted as left",
        "train/runs/training.py",
        " - state.step * sum(areas[:1]))",
        ")",
        of("training", "hours or first_step or already"),
    ),
    Defect(
        "a run goes on with other names of classes",
        "train/runs/training.py",
        "same = same and tuple(checkpoint.class_names) == tuple(self.class_names)",
        "same = same and True",
        of("command_line_runs", "other_images"),
    ),
    Defect(
        "averaged weights are kept, and not evaluated",
        "train/runs/checkpoint.py",
        "return self.average or self.parameters",
        "return self.parameters",
        of("resumption", "averaged"),
    ),
    Defect(
        "a checkpoint may have taken all steps of an epoch that has not ended",
        "train/runs/checkpoint.py",
        "max(steps - 1, 0)",
        "max(steps, 0)",
        of("checkpoint", "no_run_can"),
    ),
    Defect(
        "without held-out images the best epoch is not found again",
        "train/runs/run.py",
        '.score}", -loss)',
        '.score}", loss)',
        of("interruption", "best"),
    ),
    Defect(
        "the record of the epoch that a run goes on from is dropped",
        "train/runs/run.py",
        'if record["epoch"] <= epoch]',
        'if record["epoch"] < epoch]',
        of("resumption", "kill"),
    ),
    Defect(
        "the best checkpoint is written after the one that takes it for saved",
        "train/runs/run.py",
        "            checkpoints.save(self.path / BEST, checkpoint, versions)\n"
        "        checkpoints.save(path, checkpoint, versions)\n",
        "            checkpoints.save(path, checkpoint, versions)\n"
        "            checkpoints.save(self.path / BEST, checkpoint, versions)\n"
        "        checkpoints.save(path, checkpoint, versions)\n",
        of("resumption", "kill_between"),
    ),
    Defect(
        "a run that was stopped before its test is said to be finished",
        "train/runs/session.py",
        "if state.epoch >= config.epochs and (test or not config.test) and not changed:",
        "if state.epoch >= config.epochs and not changed:",
        of("resumption", "test_set"),
    ),
    Defect(
        "classes without test images count as wrong in balanced accuracy",
        "train/runs/session.py",
        "np.diag(result.confusion)[counts > 0] / counts[counts > 0]",
        "np.diag(result.confusion) / np.maximum(counts, 1)",
        of("classes"),
    ),
    Defect(
        "Wilson's interval has a wrong term",
        "train/runs/session.py",
        "right * (count - right) / count + square / 4",
        "right * (count - right) / count + square / 2",
        of("training", "evaluation_of_a_checkpoint"),
    ),
    Defect(
        "each rank takes the memory of its machine for its own",
        "train/runs/session.py",
        "available //= ranks.local_size",
        "available //= 1",
        of("command_line_failures", "memory or ranks or batch"),
    ),
    Defect(
        "what files hold in memory is not free in a container",
        "train/runs/memory.py",
        'int(limit) - int(used) + int(stat.get("inactive_file", 0)) + int(stat.get("active_file", 0))',
        "int(limit) - int(used)",
        of("command_line_failures", "memory or container or group"),
    ),
    Defect(
        "the temperature is fitted on the images that it is tried on",
        "train/runs/calibration.py",
        "_loss(z / fitted(other), truth)",
        "_loss(z / fitted((z, truth)), truth)",
        of("calibration"),
    ),
    Defect(
        "the weight of a mixed image may be less than 1/2",
        "train/recipes/augmentations.py",
        "np.maximum(weight, 1 - weight)",
        "weight",
        of("parts", "mix"),
    ),
    Defect(
        "shears along both axes come together",
        "train/recipes/augmentations.py",
        "np.where(kind == 2, settings.shear",
        "np.where(kind == 1, settings.shear",
        of("augmentation", "six"),
    ),
    Defect(
        "flips alternate every two epochs",
        "train/recipes/augmentations.py",
        "^ bool(position.epoch % 2)",
        "^ bool(position.epoch % 4 >= 2)",
        of("resumption", "alternate"),
    ),
    Defect(
        "mixed images count by one of the two",
        "train/recipes/augmentations.py",
        "+ (counts - other) * weight",
        "+ (counts - other)",
        of("parts", "mixed"),
    ),
    Defect(
        "the gradient of a teacher shrinks as the temperature grows",
        "train/recipes/losses.py",
        "(temperature**2 / teacher.shape[0])",
        "(temperature / teacher.shape[0])",
        of("teacher", "divergence or gradient or hot"),
    ),
    Defect(
        "biases decay",
        "train/recipes/optimizers.py",
        "if p.kind in decaying else 0.0",
        "if p.kind else 0.0",
        of("optimizer", "decay"),
    ),
    Defect(
        "the start has a tenth of averaged weights",
        "train/recipes/averages.py",
        "step / (step + 10)",
        "(step + 1) / (step + 10)",
        of("resumption", "averaged") + of("training", "moments"),
    ),
    Defect(
        "hidden squares are a pixel too large",
        "train/data/augmentation.py",
        "(n >= 0) & (n < side)",
        "(n >= 0) & (n <= side)",
        of("augmentation", "hide"),
    ),
    Defect(
        "images held out do not depend on the seed",
        "train/data/dataset.py",
        "rng = np.random.default_rng(seed)\n    ranks",
        "rng = np.random.default_rng(0)\n    ranks",
        of("data", "validation"),
    ),
    Defect(
        "a lock that another process has is removed",
        "train/storage/lock.py",
        "            if _is_at(descriptor, path):  # else it is another process's\n                os.unlink(path)",
        "            os.unlink(path)",
        of("interruption", "lock"),
    ),
    Defect(
        "the name of a file that was written is not flushed",
        "hcnn_core/_files.py",
        "        raise\n    flush_entries(path.parent)\n",
        "        raise\n",
        of("checkpoint", "disk") + of("run_files", "flushed"),
    ),
    Defect(
        "trials of a sweep read the test set",
        "train/sweep.py",
        'part in (settings, *varied, {"test": False})',
        "part in (settings, *varied)",
        of("sweep", "combinations or variant or tabled_and"),
    ),
    Defect(
        "the deviation over seeds is that of all possible seeds",
        "train/sweep.py",
        "statistics.stdev(scores)",
        "statistics.pstdev(scores)",
        of("sweep", "deviation or digits or tabled_and"),
    ),
    Defect(
        "a trial begins an epoch that its time does not suffice for",
        "train/sweep.py",
        "60 * sweep.minutes - spent > longest",
        "60 * sweep.minutes - spent > 0",
        of("sweep", "longest_epoch"),
    ),
    Defect(
        "the epoch that a trial was stopped in takes no time",
        "train/commands/trial.py",
        "return spent + checkpoint.state.seconds if checkpoint is not None and checkpoint.state.step else spent",
        "return spent",
        of("sweep", "counts"),
    ),
    Defect(
        "a trend of depths rises though its ends overlap",
        "train/attributes/claims.py",
        "rises = statistic > 0 and p <= LEVEL and ends[0] > starts[1]",
        "rises = statistic > 0 and p <= LEVEL",
        of("attribute_claims", "rise"),
    ),
    # PyTorch.
    Defect(
        "one sample cannot be reflected",
        "hcnn_core/torch/_functional.py",
        "index = index % max(2 * n - 2, 1)",
        "index = index % (2 * n - 2)",
        of_torch("layers", "pad or sample"),
    ),
    Defect(
        "tensors of two dtypes are computed in the first one's",
        "hcnn_core/torch/_functional.py",
        "dtype = torch.promote_types(x.dtype, w.dtype)",
        "dtype = x.dtype",
        of_torch("operators", "promoted"),
    ),
    Defect(
        "padding 'same' has the odd sample in front",
        "hcnn_core/torch/_functional.py",
        "((s - 1) // 2, s // 2)",
        "(s // 2, (s - 1) // 2)",
        of_torch("layers", "pad or sample"),
    ),
    Defect(
        "a bias of more digits is rounded",
        "hcnn_core/torch/_functional.py",
        "if torch.promote_types(bias.dtype, x.dtype) != x.dtype:",
        "if False:",
        of_torch("layers", "refuses or one_line"),
    ),
    Defect(
        "gradients of complex tensors are not conjugate",
        "hcnn_core/torch/_operators.py",
        "(saved.conj() for saved in ctx.saved_tensors)",
        "(saved for saved in ctx.saved_tensors)",
        of_torch("operators", "those_of_arrays"),
    ),
    Defect(
        "the tangent of the second operand is left out",
        "hcnn_core/torch/_operators.py",
        "return first + others[0] if others else first",
        "return first",
        of_torch("operators", "transform or tangent"),
    ),
    Defect(
        "strides without values are not those of values",
        "hcnn_core/torch/_operators.py",
        "for axis in order]).permute(np.argsort(order).tolist())",
        "for axis in np.argsort(order)]).permute(order)",
        of_torch("operators", "without_values"),
    ),
    Defect(
        "a map over no pairs is refused",
        "hcnn_core/torch/_operators.py",
        "        if not info.batch_size:\n            return a.new_empty((0, *shape(role, problem))), 0\n",
        "",
        of_torch("layers", "nothing") + of_torch("operators", "mapping"),
    ),
    Defect(
        "the lengths that a transposed convolution is asked for are ignored",
        "hcnn_core/torch/_modules.py",
        "        if output_size is not None:\n",
        "        if output_size is None and False:\n",
        of_torch("layers", "asked_for"),
    ),
    # Files of plans, variables, values: eleven that a later campaign had found nobody to notice, then others.
    Defect(
        "parts of a marginal are averaged in ONNX where they are summed",
        "train/runs/onnx.py",
        '"Mean" if kind == "mean" else "Sum"',
        '"Mean"',
        of("onnx", "same_logits"),
    ),
    Defect(
        "predictions standardise by channel what was standardised by sample",
        "train/classifier.py",
        "checkpoint.channel_std, config.dtype, config.standardize",
        "checkpoint.channel_std, config.dtype",
        of("axes", "standard or sample") + of("onnx", "same_logits"),
    ),
    Defect(
        "a sample that only rounding makes vary is divided by its deviation",
        "train/data/augmentation.py",
        "LEAST = 16",
        "LEAST = 0",
        of("axes", "standard or sample or constant"),
    ),
    Defect(
        "a run goes on with targets of another mean",
        "train/runs/training.py",
        " and np.array_equal(ours.mean, targets.mean)",
        "",
        of("targets", "goes_on"),
    ),
    Defect(
        "pictures in hidden folders are taken",
        "train/data/folder.py",
        'sorted(p for p in folder.iterdir() if p.name[0] != ".")',
        "sorted(folder.iterdir())",
        of("folder", "hidden"),
    ),
    Defect(
        "classes with a second axis of length 1 are refused",
        "train/data/labels.py",
        "array.size != len(array) or not np.isfinite",
        "array.ndim != 1 or not np.isfinite",
        of("custom_data", "second_axis"),
    ),
    Defect(
        "a variance of fewer elements than ddof is negative",
        "autodiff/_rules/reductions.py",
        "return total / (count if count > 0 else 0)",
        "return total / count",
        of_tape("promotion", "ddof"),
    ),
    Defect(
        "a file of choices keeps the last alone",
        "hcnn_core/_engines/wisdom.py",
        "        return _lines(machine, known)\n\n    rewrite",
        "        return _lines(machine, {problem: known[problem]})\n\n    rewrite",
        of_core("planning", "book or file or write"),
    ),
    Defect(
        "infinite times in a machine's file decide",
        "hcnn_core/_engines/wisdom.py",
        "return {problem: times for problem, times in problems.items() if math.inf not in times.values()}",
        "return problems",
        of_core("planning", "infinite"),
    ),
    Defect(
        "a race keeps the last seconds, not the least",
        "hcnn_core/_engines/measuring.py",
        "best[name] = min(best[name], seconds)",
        "best[name] = seconds",
        of_core("planning", "least_seconds"),
    ),
    Defect(
        "first runs do not count for the time of a race",
        "hcnn_core/_engines/measuring.py",
        "spent += 2 * seconds",
        "spent += 0 * seconds",
        of_core("planning", "race or clock or time"),
    ),
    Defect(
        "text files of any length are read",
        "hcnn_core/_files.py",
        "if len(content) > MOST_TEXT:",
        "if False:",
        of("run_files", "editors"),
    ),
    Defect(
        "a file is moved before it is on the disk",
        "hcnn_core/_files.py",
        "            os.fsync(stream.fileno())\n",
        "",
        of_core("planning", "link"),
    ),
    Defect(
        "a file written anew has another mode",
        "hcnn_core/_files.py",
        "os.chmod(partial, stat.S_IMODE(os.stat(path).st_mode))",
        "pass",
        of_core("planning", "link"),
    ),
    Defect(
        "a link to a file of choices becomes a file",
        "hcnn_core/_files.py",
        "path = Path(os.path.realpath(path))",
        "path = Path(path)",
        of_core("planning", "link"),
    ),
    Defect(
        "writers do not wait for each other",
        "hcnn_core/_files.py",
        "fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "pass",
        of_core("planning", "many_write or holds"),
    ),
    Defect(
        "the lock of a file that was replaced counts",
        "hcnn_core/_files.py",
        " and os.path.samestat(os.fstat(descriptor), os.stat(path))",
        "",
        of_core("planning", "many_write or lies_there"),
    ),
    Defect(
        "a lock that is held is passed over",
        "hcnn_core/_files.py",
        "if error.errno not in HELD:",
        "if True:",
        of_core("planning", "holds"),
    ),
    Defect(
        "a new file that cannot be written stays, empty",
        "hcnn_core/_files.py",
        "if is_new and not text:  # it was made to be locked",
        "if False:",
        of_core("planning", "absent"),
    ),
    Defect(
        "a file of choices of a later version is taken",
        "hcnn_core/_engines/wisdom.py",
        "if head != FORMAT:",
        'if not head.startswith("hcnn wisdom"):',
        of_core("planning", "no_book"),
    ),
    Defect(
        "a file of choices that is cut is taken",
        "hcnn_core/_engines/wisdom.py",
        ' or text[-1] != "\\n"',
        "",
        of_core("planning", "no_book"),
    ),
    Defect(
        "the last of two that choose at once holds",
        "hcnn_core/_engines/wisdom.py",
        "if known.get(problem) == before:  # no other",
        "if True:  # no other",
        of_core("planning", "first_in_the_file"),
    ),
    Defect(
        "files that cannot be deleted count as deleted",
        "hcnn_core/_engines/wisdom.py",
        "return len(files) - len(left), left",
        "return len(files), left",
        of_core("planning", "passes_over"),
    ),
    Defect(
        "wisdom --forget fails with status 0",
        "hcnn_core/plans.py",
        "return int(bool(left))",
        "return 0",
        of_core("planning", "passes_over"),
    ),
    Defect(
        "a choice that there is no more is taken",
        "hcnn_core/_engines/measuring.py",
        "filter(self.choices.__contains__, wisdom",
        "filter(bool, wisdom",
        of_core("planning", "damaged"),
    ),
    Defect(
        "what is surely slower takes the estimate's place",
        "hcnn_core/_engines/measuring.py",
        "return mean < 0",
        "return True",
        of_core("planning", "surely_slower"),
    ),
    Defect(
        "the beginning of a variable is checked alone",
        "hcnn_core/_environment.py",
        "re.fullmatch(pattern, text)",
        "re.match(pattern, text)",
        of_core("environment", "whatever"),
    ),
    Defect(
        "one variable is checked at the first use",
        "hcnn_core/_environment.py",
        "for name in VARIABLES:\n        value(name)",
        "for name in list(VARIABLES)[:1]:\n        value(name)",
        of_core("environment", "first_use or whatever"),
    ),
    Defect(
        "convolutions check no variable",
        "hcnn_core/_tuning.py",
        "    require_valid()\n",
        "",
        of_core("environment", "first_use"),
    ),
    Defect(
        "what does not convolve checks no variable",
        "hcnn_core/backend/_namespaces.py",
        "    require_valid()\n",
        "",
        of_core("environment", "first_use"),
    ),
    Defect(
        "a wrong variable is a failure, not a wrong setting",
        "train/commands/command_line.py",
        "case ConfigError() | VariableError():",
        "case ConfigError():",
        of_core("environment", "command"),
    ),
    Defect(
        "no hint at quotes where a path has escapes",
        "train/config.py",
        "{hint * escape}",
        "",
        of("config", "toml"),
    ),
    Defect(
        "a folder with a tab in its name is refused",
        "train/config.py",
        " and not os.path.exists(value)",
        "",
        of("config", "tab_in"),
    ),
    Defect(
        "ELU has the mean of both slopes at 0",
        "train/networks/activations.py",
        "np.where(x < 0, np.expm1(np.minimum(x, 0)), x)",
        "np.where(x > 0, x, np.expm1(np.minimum(x, 0)))",
        of("activations", "slope_at"),
    ),
    Defect(
        "sums are in single precision on any library",
        "hcnn_core/backend/_namespaces.py",
        '.get("float64", array.dtype)',
        '["float32"]',
        of_core("backend", "double or moments or normal"),
    ),
    Defect(
        "an array that fits no machine asks for smaller batches",
        "train/data/custom.py",
        'MemoryError as error:\n        raise DataError(f"{path}: {str',
        'MemoryError as error:\n        raise\n        raise DataError(f"{path}: {str',
        of("custom_data", "no_machine"),
    ),
    Defect(
        "masks of constants are dropped by the tape",
        "autodiff/_constants.py",
        "    refuse_notes(x)\n",
        "",
        of_tape("silence", ""),
    ),
    Defect(
        "what only looks like an array has the gradient 0",
        "autodiff/functional.py",
        "if type(leaf) not in PLAIN and not is_array(leaf):",
        "if False:",
        of_tape("silence", "") + of_tape("functional", ""),
    ),
    Defect(
        "integers asked for are truncated, not NumPy's",
        "autodiff/tape.py",
        'np.dtype(options["dtype"]).kind in "biu"',
        'np.dtype(options["dtype"]).kind in "b"',
        of_tape("promotion", "whole_numbers"),
    ),
    Defect(
        "a formatted traced value is a number",
        "autodiff/tape.py",
        'return f"Traced({format(getval(self), spec)})" if spec else repr(self)',
        "return format(getval(self), spec) if spec else repr(self)",
        of_tape("tape", "text or format or show"),
    ),
    Defect(
        "exponents of few bits wrap around",
        "autodiff/_rules/elementwise.py",
        "y - 1 if type(y) is int else y - 1.0",
        "y - 1",
        of_tape("promotion", "wrap"),
    ),
    Defect(
        "second derivatives of a norm at 0 are the identity",
        "autodiff/_rules/table.py",
        "return np.where(norm == 0, 0, g / nonzero(norm))",
        "return g / nonzero(norm)",
        of_tape("promotion", "zero or norm or second") + of_tape("numpy_rules", "norm or abs"),
    ),
    Defect(
        "averages of half precision overflow",
        "autodiff/_rules/reductions.py",
        "wide = np.promote_types(dtype, np.float32)",
        "wide = dtype",
        of_tape("promotion", "many_numbers"),
    ),
    Defect(
        "a polynomial without coefficients has NaN where x is infinite",
        "autodiff/_rules/products.py",
        "value: Any = np.zeros_like(x)",
        "value: Any = 0 * x",
        of_tape("promotion", "polynomial or mixed or coefficients or empty"),
    ),
    Defect(
        "a choice has the dtype of what was chosen last",
        "autodiff/_rules/elementwise.py",
        "    return chosen.astype(dtype)",
        "    return chosen",
        of_tape("promotion", "mixed"),
    ),
    Defect(
        "orders of few bits wrap around",
        "autodiff/_rules/special.py",
        "polygamma(n + 1.0, x)",
        "polygamma(n + 1, x)",
        of_tape("promotion", "order"),
    ),
    Defect(
        "a linear operator drops a mask",
        "hcnn_core/operators.py",
        "        def dot(self, x: Any) -> Any:\n            refuse_notes(x)\n",
        "        def dot(self, x: Any) -> Any:\n",
        of_core("linear_operator", "mask or unit or notes"),
    ),
    Defect(
        "what overflows on the way alone stays NaN",
        "hcnn_core/convolution.py",
        "if not np.all(np.isfinite(largest)):",
        "if True:",
        of_core("convolution", "largest_number"),
    ),
    Defect(
        "cotangents of scaled operands are not scaled back",
        "hcnn_core/convolution.py",
        "((0, 2), (0, 1))), None)",
        "((0, 1), (0, 2))), None)",
        of_core("convolution", "largest_number"),
    ),
    Defect(
        "a mask is dropped by every function",
        "hcnn_core/backend/_namespaces.py",
        "if isinstance(array, np.ma.MaskedArray):",
        "if False:",
        of_core("backend", "refuse or masked or arrays_that"),
    ),
    Defect(
        "shifts of signals are scaled as those of images are",
        "train/config.py",
        "if made_for and len(lengths) == 2 and",
        "if made_for and",
        of("custom_data", "ends_at_the_size"),
    ),
    Defect(
        "images count alike in the loss, whatever they weigh",
        "train/recipes/losses.py",
        "return values if batch.counts is None else values * batch.counts[:, None]",
        "return values",
        of("classes", "") + of("targets", "loss"),
    ),
    Defect(
        "numbers of points are rounded",
        "autodiff/_rules/joining.py",
        "num = operator.index(num)",
        "num = int(num)",
        of_tape("rule_arguments", "") + of_tape("promotion", "whole") + of_tape("numpy_rules", "linspace"),
    ),
    # JAX.
    Defect(
        "arrays of two dtypes are computed in the first one's",
        "hcnn_core/jax.py",
        "dtype = jnp.promote_types(x.dtype, w.dtype)",
        "dtype = x.dtype",
        of_jax("promotion"),
    ),
    Defect(
        "filters of integers are taken",
        "hcnn_core/jax.py",
        'for name, array in (("x", x), ("w", w)):',
        'for name, array in (("x", x),):',
        of_jax("bad_input"),
    ),
    Defect(
        "the method is that of the cost model, whatever was asked",
        "hcnn_core/jax.py",
        "stride=stride, method=method)",
        'stride=stride, method="auto")',
        of_jax(),
    ),
    Defect(
        "a map has its axis in front, where filters are mapped too",
        "hcnn_core/jax.py",
        "place % len(shape(role, wider))",
        "0",
        of_jax("mapping"),
    ),
    Defect(
        "the second of two mapped operands is mapped along its first axis",
        "hcnn_core/jax.py",
        "pairs = jnp.moveaxis(a, of_a, 0), jnp.moveaxis(b, of_b, 0)",
        "pairs = jnp.moveaxis(a, of_a, 0), b",
        of_jax("mapping"),
    ),
    Defect(
        "what is the same on all devices is not cast",
        "hcnn_core/jax.py",
        "    if of_a != of_b:\n",
        "    if of_a != of_b and False:\n",
        of_jax("devices"),
    ),
    Defect(
        "values are not computed where compiling is turned off",
        "hcnn_core/jax.py",
        "    with jax.disable_jit(False):\n        return",
        "    return",
        of_jax(),
    ),
)


def outcome(folder: Path, tests: Tests, log: Path) -> tuple[bool, str]:
    """Whether a test failed in a copy, and which; else how many passed."""
    passed = 0
    for file, words in tests:
        result = tested(folder, ["-x", "-rfE", "-k", words, file], 600, 3600, log)
        lines = log.read_text("utf-8", "replace").strip().splitlines()
        failed = [line.split()[1] for line in lines if line.startswith(("FAILED", "ERROR "))]
        if failed:
            return True, failed[0].rpartition("/")[2]
        if result != "survived":
            raise SystemExit(f"{file}, {words}: {result}, {lines[-1:]}")
        passed += int(re.findall(r"(\d+) passed", lines[-1])[0])
    return False, f"{passed} tests passed"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help="of a defect's file or words; all by default")
    parser.add_argument("--part", default="0/1", help="i/n: every n-th of these, from the i-th on")
    options = parser.parse_args()
    begin, step = map(int, options.part.split("/"))
    wanted = [d for d in DEFECTS if any(p in f"{d.file} {d.what}" for p in options.parts or [""])][begin::step]
    noticed = missed = 0
    os.environ |= ENVIRONMENT
    sys.dont_write_bytecode = True
    for name in (*PRELOADED, "matplotlib.pyplot"):
        __import__(name)
    with tempfile.TemporaryDirectory() as temporary:
        folder, log = (Path(temporary).resolve() / name for name in ("tree", "log"))
        copy_tree(folder)
        for defect in wanted:
            framework = next((name for name in ("torch", "jax") if f"hcnn_core/{name}" in defect.file), "")
            if framework and find_spec(framework) is None:
                print(f"{defect.file}: {defect.what}: left out, {framework} is not installed", flush=True)
                continue
            path = folder / defect.file
            text = path.read_text("utf-8")
            assert text.count(defect.old) == 1, f"{defect.file} does not have once: {defect.old}"
            path.write_text(text.replace(defect.old, defect.new), "utf-8")
            is_noticed, said = outcome(folder, defect.tests, log)
            path.write_text(text, "utf-8")
            noticed, missed = noticed + is_noticed, missed + (not is_noticed)
            print(f"{defect.file}: {defect.what}: {'noticed by' if is_noticed else 'NOT NOTICED,'} {said}", flush=True)
    print(f"{noticed} of {noticed + missed} planted defects noticed")
    return min(missed, 1)


if __name__ == "__main__":
    sys.exit(main())

"""Plant mistakes in the package and in pages of the gallery, one at a time, and see whether the pages notice them.

``python scripts/planted_mistakes.py [PAGE ...]`` runs pages in a copy of the repository, at their small size: first as
they are, then with each of their mistakes. A mistake is noticed if an assertion fails, or, of those in pages, if
``blind_pages.py`` sees that the page looks at its test set. One that is not, or that ends the page by another error, is
a claim that the page makes and does not check. Pages that need a framework are left out where it is not installed.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from copies import ROOT, copy_tree
from pages import pages

ENVIRONMENT = {"MPLBACKEND": "Agg", "HCNN_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "CUPY_PYLOPS": "0"}


class Mistake(NamedTuple):
    """A text of a file, which occurs once in it, and the text that is planted in its place."""

    page: str
    what: str
    file: str
    old: str
    new: str


MISTAKES = (
    Mistake(
        *("01", "the edge is repeated where it should not be, and not where it should", "hcnn_core/translation.py"),
        *('skip = int(self.boundary == "mirror")', 'skip = int(self.boundary == "reflect")'),
    ),
    Mistake(
        *("02", "the gradient's taps are in reverse order", "hcnn_core/convolution.py"),
        *("    return g_w\n", "    return g_w[::-1]\n"),
    ),
    Mistake(
        *("03", "every operator is covariant", "hcnn_core/testing/assertions.py"),
        *("return self.error <= self.bound", "return self.bound >= 0"),
    ),
    Mistake(
        *("04", "cotangents in JAX have the wrong sign", "hcnn_core/jax.py"),
        *(
            "return derivative_p.bind(a, b, role=role, problem=problem)",
            'return derivative_p.bind(a, b, role=role, problem=problem) * (1 if role == "y" else -1)',
        ),
    ),
    Mistake(
        *("05", "the adjoint is the operator itself", "hcnn_core/convolution.py"),
        *("    assert g_x is not None\n    return g_x", "    return forward(xp, problem, g, w)"),
    ),
    Mistake(
        *("06", "the dot test allows any error", "hcnn_core/testing/assertions.py"),
        *("bound, basis = (of_image * norm(v)", "bound, basis = 1e16 * (of_image * norm(v)"),
    ),
    Mistake(
        *("07", "the second harmonic has the other sign", "wavelets/harmonics.py"),
        *("return 0.0 if k % 2 else -((-1) ** (k // 2))", "return 0.0 if k % 2 else ((-1) ** (k // 2))"),
    ),
    Mistake(
        *("08", "the modulus is left out", "wavelets/scattering.py"),
        *("return fftn(np.abs(filtered), self.axes)", "return fftn(np.real(filtered), self.axes)"),
    ),
    Mistake(
        *("09", "lags do not grow with the scale", "wavelets/harmonics.py"),
        *("step = lag * 2 ** (j if j >= 0 else bank.scales - 1)", "step = lag"),
    ),
    Mistake(
        *("09", "means are ignored", "wavelets/synthesis.py"),
        *("** 2) for key in wanted)", "** 2) for key in wanted if key != 'mean')"),
    ),
    Mistake(
        *("10", "1.69 times the intermittency", "wavelets/processes.py"),
        *("* math.sqrt(intermittency)\n    e = rng", "* 1.3 * math.sqrt(intermittency)\n    e = rng"),
    ),
    Mistake(
        *("10", "means alone are asked for", "wavelets/synthesis.py"),
        *("** 2) for key in wanted)", "** 2) for key in wanted if key == 'mean')"),
    ),
    Mistake(
        *("11", "the lecture's misprint of the soft threshold", "wavelets/sparse.py"),
        *("return np.maximum(x - tau, 0) + np.minimum(x + tau, 0)", "return np.maximum(np.abs(x) - tau, 0)"),
    ),
    Mistake(
        *("11", "the loss without its 1/2", "wavelets/sparse.py"),
        *("np.conj(residual)), axis=-1) / 2 +", "np.conj(residual)), axis=-1) +"),
    ),
    Mistake(
        *("12", "components are multiplied by their deviations", "wavelets/principal.py"),
        *("(vectors / deviations).astype", "(vectors * deviations).astype"),
    ),
    Mistake(
        *("13", "filters are not of norm 1", "wavelets/orthogonal.py"),
        *("taps *= math.sqrt(2) / taps.sum()", "taps *= 1.4 / taps.sum()"),
    ),
    Mistake(
        *("13", "filters are not orthogonal to their translations", "wavelets/orthogonal.py"),
        *("z = np.where(np.abs(z) < 1, z, 1 / np.where(z == 0, 1, z))", "z = np.abs(z)"),
    ),
    Mistake(
        *("14", "descent goes up", "wavelets/descent.py"),
        *("keep * v - step * g", "keep * v + step * g"),
    ),
    Mistake(
        *("15", "phases of the control are not random", "wavelets/processes.py"),
        *("np.fft.ifftn(np.abs(spectrum) * noise / np.abs(noise))", "np.fft.ifftn(spectrum)"),
    ),
    Mistake(
        *("15", "waves have one direction", "wavelets/gabor.py"),
        *("along = (u - p[0]) * np.cos(p[4]) + (v - p[1]) * np.sin(p[4])", "along = u - p[0]"),
    ),
    Mistake(
        *("16", "translations go the other way", "hcnn_core/translation.py"),
        *(
            "result = _translated(xp, result, axis, s, boundary)",
            "result = _translated(xp, result, axis, -s, boundary)",
        ),
    ),
    Mistake(
        *("17", "biases have the wrong sign", "hcnn_core/convolution.py"),
        *("return xp, problem, x, w, bias\n", "return xp, problem, x, w, -bias\n"),
    ),
    Mistake(
        *("20", "all maps of C3 see all of S2", "train/networks/lenet.py"),
        *('"w": weights["w"] * self._mask(getval(inputs[0]))}', '"w": weights["w"]}'),
    ),
    Mistake(
        *("21", "the modulus is left out", "wavelets/scattering.py"),
        *("return fftn(np.abs(filtered), self.axes)", "return fftn(np.real(filtered), self.axes)"),
    ),
    Mistake(
        *("22", "powers in the place of harmonics", "wavelets/harmonics.py"),
        *("return z * _power(_phase(z), k - 1)", "return z * _power(z, k - 1)"),
    ),
    Mistake(
        *("23", "wavelets do not turn with the angle", "wavelets/rotations.py"),
        *("np.roll(self.bank.psi[j], -beta, axis=0)", "self.bank.psi[j][beta]"),
    ),
    Mistake(
        *("24", "wavelets of three octaves", "wavelets/filters.py"),
        *("(abs(octave) < 1) * np.cos(math.pi / 2 * octave)", "(abs(octave) < 1.5) * np.cos(math.pi / 3 * octave)"),
    ),
    Mistake(
        *("24", "phases of the Gaussian model are not random", "wavelets/processes.py"),
        *("np.fft.ifftn(np.abs(spectrum) * noise / np.abs(noise))", "np.fft.ifftn(spectrum)"),
    ),
    Mistake(
        *("25", "the network forgets the dictionary", "wavelets/sparse.py"),
        *(
            "code = soft_threshold(code + (code @ dictionary.T - x) @ encoder.T",
            "code = soft_threshold(code - x @ encoder.T",
        ),
    ),
    Mistake(
        *("27", "the first eigenvector orders", "wavelets/organization.py"),
        *("[1][:, -2] / root", "[1][:, -1] / root"),
    ),
    Mistake(
        *("28", "the farthest are taken for the nearest", "wavelets/boundary.py"),
        *("np.argsort(distances, axis=1", "np.argsort(-distances, axis=1"),
    ),
    Mistake(
        *("29", "thresholds do nothing", "wavelets/sparse.py"),
        *("step * penalty, iterations=iterations)", "0.0, iterations=iterations)"),
    ),
    Mistake(
        *("26", "means alone are asked for", "wavelets/synthesis.py"),
        *("** 2) for key in wanted)", "** 2) for key in wanted if key == 'mean')"),
    ),
    Mistake(
        *("23", "angles meet at no place: the mean over them comes before the modulus", "wavelets/rotations.py"),
        *(
            "yield np.mean(np.abs(ifftn(spectrum * angular, (ANGLE,))), axis=ANGLE)",
            "yield np.abs(np.mean(ifftn(spectrum * angular, (ANGLE,)), axis=ANGLE))",
        ),
    ),
    Mistake(
        *("34", "the network is linear", "train/networks/hierarchical.py"),
        *(
            "return Signal(fused.convolve(*operands, **self._options))",
            'return Signal(convolve(x, filters["w"], self._axes, **self._options) + filters["bias"])',
        ),
    ),
    Mistake(
        *("35", "space is subsampled along one axis alone", "train/networks/hierarchical.py"),
        *('"stride": (*(step,) * axes, ', '"stride": (step, *(1,) * (axes - 1), '),
    ),
    Mistake(
        *("35", "attributes have each other's names", "train/classifier.py"),
        *("range(len(source.outputs) - count - 1, -1, -1)", "range(len(source.outputs) - count)"),
    ),
    Mistake(
        *("31", "gradients of filters in PyTorch have the wrong sign", "hcnn_core/convolution.py"),
        *('result = g_x if role == "x" else g_w', 'result = g_x if role == "x" else -g_w'),
    ),
    Mistake(
        *("32", "gradients of filters in PyTorch have the wrong sign", "hcnn_core/convolution.py"),
        *('result = g_x if role == "x" else g_w', 'result = g_x if role == "x" else -g_w'),
    ),
    Mistake(
        *("05", "the adjoint of linear_operator is the operator itself", "hcnn_core/operators.py"),
        *(
            "convolve_vjp_x(signals, (count, *self.result), self.filters, self.axes, **self.options)",
            "convolve(signals, self.filters, self.axes, **self.options)",
        ),
    ),
    Mistake(
        *("38", "pursuit ends after its first step", "wavelets/sparse.py"),
        *("for _ in range(iterations - 1):", "for _ in range(0):"),
    ),
    Mistake(
        *("40", "the modulus is left out", "wavelets/scattering.py"),
        *("return fftn(np.abs(filtered), self.axes)", "return fftn(np.real(filtered), self.axes)"),
    ),
    Mistake(
        *("39", "the transpose of a mean is that of a sum", "hcnn_core/marginals.py"),
        *('    if reduction == "mean":\n        count =', '    if reduction == "none":\n        count ='),
    ),
    Mistake(
        *("39", "units are said to see less than they do", "train/attributes/units.py"),
        *("size += (layer.kernel_size[0] - 1 + 2 * layer.blurs) * step", "size += layer.kernel_size[0] - 1"),
    ),
    Mistake(
        *("41", "descent goes up", "wavelets/descent.py"),
        *("adamw_update(*operands, rate=step,", "adamw_update(*operands, rate=-step,"),
    ),
    Mistake(
        *("37", "reflections take the place of translations", "train/attributes/symmetry.py"),
        *("before = (places[None, :] - places[:, None]) % n", "before = (places[None, :] + places[:, None]) % n"),
    ),
    Mistake(
        *("42", "probabilities are not normalised", "train/recipes/tasks.py"),
        *("exp(log_softmax(outputs))", "exp(outputs)"),
    ),
    Mistake(
        *("43", "the first picture of a batch has no row", "train/predict.py"),
        *(
            "for name, row in zip(names, cells, strict=True))",
            "for name, row in zip(names[1:], cells[1:], strict=True))",
        ),
    ),
    Mistake(
        *("44", "images are multiplied by the deviations", "train/runs/onnx.py"),
        *(
            'graph.add("Div", x, graph.constant(np.asarray(checkpoint.channel_std',
            'graph.add("Mul", x, graph.constant(np.asarray(checkpoint.channel_std',
        ),
    ),
    Mistake(
        *("10", "the model starts from the spectrum of the series", "examples/2_theory/plot_10_multifractal.py"),
        *(
            "lbfgs(distance, rng.standard_normal(length).astype(np.float32), iterations=80)",
            "lbfgs(distance, randomize_phases(x, rng).astype(np.float32), iterations=80)",
        ),
    ),
    Mistake(
        *("10", "a deviation in the place of a standard error", "examples/2_theory/plot_10_multifractal.py"),
        *(
            "spread = np.std(2 * each[:, 1] - each[:, 3], ddof=1) / np.sqrt(realisations)",
            "spread = np.std(2 * each[:, 1] - each[:, 3], ddof=1)",
        ),
    ),
    Mistake(
        *("11", "the tested signals choose the rate", "examples/2_theory/plot_11_sparse_coding.py"),
        *(
            "learned = adam(loss_of, start, batches, rate=3e-3)",
            "found = [adam(loss_of, start, batches, rate=rate) for rate in (1e-3, 3e-3, 1e-2)]\n"
            "    learned = min(found, key=lambda p: loss_of(p, tested))",
        ),
    ),
    Mistake(
        *("13", "the theory chooses the range of each fit", "examples/2_theory/plot_13_cartoon.py"),
        *(
            "    axes[1].loglog(terms, errors, label=",
            "    ranges = [(terms >= k) & (terms <= 16 * k) for k in (16, 30, 60, 120, 200)]\n"
            "    fits = [np.polyfit(np.log(terms[part]), np.log(errors[part]), 1)[0] for part in ranges]\n"
            "    slopes[name][1] = min(fits, key=lambda slope: abs(slope - theory[name]))\n"
            "    axes[1].loglog(terms, errors, label=",
        ),
    ),
    Mistake(
        *("14", "the test images choose the rate", "examples/3_networks/plot_14_one_layer.py"),
        *("key=lambda trial: trial[0])", "key=lambda trial: trial[1])"),
    ),
    Mistake(
        *("14", "it is trained on the test images", "examples/3_networks/plot_14_one_layer.py"),
        *(
            "(sample.train_images[:count], sample.test_images))\nclasses = sample.train_labels[:count]",
            "(sample.test_images[:count], sample.test_images))\nclasses = sample.test_labels[:count]",
        ),
    ),
    Mistake(
        *(
            "20",
            "the accuracy of training images is called that of test images",
            "examples/3_networks/plot_20_lenet.py",
        ),
        *(
            "classifier.logits(sample.test_images).argmax(axis=1) == sample.test_labels",
            "classifier.logits(sample.train_images).argmax(axis=1) == sample.train_labels",
        ),
    ),
    Mistake(
        *("20", "the test images choose the rate", "examples/3_networks/plot_20_lenet.py"),
        *(
            '    classifier = fit(config, out=f"{folder}/run", on_epoch=curve.append)\n',
            "    from dataclasses import replace\n\n"
            '    tested, config = load_dataset("sample"), replace(config, learning_rate=0.01)\n'
            "    for rate in (0.01, 0.05, 0.1):\n"
            "        records, tried = [], replace(config, learning_rate=rate)\n"
            '        found = fit(tried, out=f"{folder}/{rate}", on_epoch=records.append)\n'
            "        share = np.mean(found.logits(tested.test_images).argmax(axis=1) == tested.test_labels)\n"
            "        if rate == 0.01 or share > best:\n"
            "            best, config, curve, classifier = share, tried, records, found\n",
        ),
    ),
    Mistake(
        *("20", "no momentum", "examples/3_networks/plot_20_lenet.py"),
        *('"batch_size": 20, "epochs"', '"batch_size": 20, "momentum": 0.0, "epochs"'),
    ),
    Mistake(
        *("20", "responses are shown without their sign", "examples/3_networks/plot_20_lenet.py"),
        *("montage(maps, 1.72,", "montage(abs(maps), 1.72,"),
    ),
    Mistake(
        *("26", "the draw nearest to the signal is kept", "examples/2_theory/plot_26_reconstruction.py"),
        *(
            "next(y for y, value in draws if value < 1e-4)",
            "min((y for y, value in (next(draws) for _ in range(20)) if value < 1e-4),"
            " key=lambda y: squared_error(resample(y, d), signal))",
        ),
    ),
)


def failure_of(folder: Path, page: Path, *arguments: str) -> str:
    """The error that ends a page in a copy, in a line, and nothing if it ends well."""
    environment = {**os.environ, "HCNN_EXAMPLES": "as they are", **ENVIRONMENT, "PYTHONPATH": str(folder)}
    command = [sys.executable, str(folder / page), *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    said = done.stderr.strip().splitlines()
    errors = [line for line in said if re.match(r"[\w.]*(Error|Exception)\b", line)]  # more lines may follow
    return [f"status {done.returncode}", *said[-1:], *errors][-1] if done.returncode else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pages", nargs="*", metavar="PAGE", help="numbers, such as 08; all by default")
    options = parser.parse_args()
    noticed, missed = 0, 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve()
        copy_tree(folder)
        os.environ["HCNN_EXAMPLES"] = "small"
        pages(folder / "examples")
        for page in sorted({mistake.page for mistake in MISTAKES} & set(options.pages or [m.page for m in MISTAKES])):
            (path,) = (file.relative_to(ROOT) for file in ROOT.glob(f"examples/*/plot_{page}_*.py"))
            failure = failure_of(folder, path)
            if failure.startswith("ModuleNotFoundError"):
                print(f"{path.stem.removeprefix('plot_')}: left out: {failure}", flush=True)
                continue
            if failure:
                raise SystemExit(f"{path} fails without a mistake: {failure}")
            for mistake in (m for m in MISTAKES if m.page == page):
                changed = folder / mistake.file
                text = changed.read_text("utf-8")
                assert text.count(mistake.old) == 1, f"{mistake.file} does not have once: {mistake.old}"
                changed.write_text(text.replace(mistake.old, mistake.new), "utf-8")
                failure = failure_of(folder, path)
                is_noticed = failure.startswith("AssertionError")
                if not failure and mistake.file.startswith("examples/"):
                    failure = failure_of(folder, Path("scripts", "blind_pages.py"), page)
                    is_noticed = "LOOKS AT ITS TEST SET" in failure
                changed.write_text(text, "utf-8")
                noticed, missed = noticed + is_noticed, missed + (not is_noticed)
                verdict = "noticed" if is_noticed else "NOT NOTICED"
                print(f"{path.stem.removeprefix('plot_')}: {mistake.what}: {verdict} {failure[:100]}", flush=True)
    print(f"{noticed} of {noticed + missed} planted mistakes noticed")
    return min(missed, 1)


if __name__ == "__main__":
    sys.exit(main())

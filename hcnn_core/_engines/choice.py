"""Ways to compute a convolution. The planner lists them, the cost model prices them, and plans are built from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from hcnn_core._engines.arrangement import Arrangement
from hcnn_core._engines.taps import Matrices, TapProducts
from hcnn_core._engines.transform import Transform
from hcnn_core._tuning import Tuning

if TYPE_CHECKING:
    from hcnn_core._engines.cuda.single import SinglePlan
    from hcnn_core._engines.generic.fft_plan import FFTPlan
    from hcnn_core._engines.generic.plan import Plan


@dataclass(frozen=True)
class ByAxis:
    """Some axes are transformed, the others convolved tap by tap.

    Parameters
    ----------
    engine : type
        The class of the plan.
    arrangement : Arrangement
        The method of each axis, the order of all axes, and whether tiles may be used.
    transform, products : Transform, TapProducts
        The maps along the transformed axes, and over the others.
    real : bool
        Whether signal and filters are real.
    tuning : Tuning
        Sizes of the plan's blocks.
    """

    engine: type[Plan[Any]]
    arrangement: Arrangement
    transform: Transform[Any]
    products: TapProducts[Any]
    real: bool
    tuning: Tuning

    @property
    def methods(self) -> tuple[str, ...]:
        return self.arrangement.methods

    @property
    def name(self) -> str:
        """What tells it from the other choices of a problem."""
        return f"{self.engine.__name__} {' '.join(self.methods)}"

    @property
    def matrices(self) -> Matrices:
        """The filter matrices of the plan."""
        a, d = self.arrangement, self.transform
        return Matrices(
            entries=d.frequencies * a.outer_size,
            rows=d.planes * a.out,
            columns=d.aliases * d.planes * a.channels,
            of_spectra=bool(a.spectral),
            are_complex=d.makes_complex or not self.real,
        )

    def make(self) -> Plan[Any]:
        """Return the plan."""
        return self.engine(self.arrangement, self.transform, self.products, self.tuning)


@dataclass(frozen=True)
class Subsampled(ByAxis):
    """A plan whose kernels cannot take some strides: the whole result is made, and samples of it are kept."""

    whole: ByAxis

    def make(self) -> Plan[Any]:
        """Return the plan."""
        engine: Any = self.engine
        return engine(self.arrangement, self.transform, self.products, self.tuning, self.whole.make())


@dataclass(frozen=True)
class AtOnce:
    """One FFT, or one kernel, along all axes."""

    plan: FFTPlan | SinglePlan
    methods: tuple[str, ...]

    @property
    def name(self) -> str:
        """What tells it from the other choices of a problem."""
        return f"{type(self.plan).__name__} all axes at once"

    def make(self) -> Any:
        """Return the plan."""
        return self.plan


Choice: TypeAlias = ByAxis | AtOnce

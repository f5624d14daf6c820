"""Simulated scores of clustered patients, the truth of which is known."""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Population:
    """Patients of 1 to 8 images (2.5 on average); finding and score are correlated within a patient.

    The score of an image is normal with variance 1, its mean 0 without the finding and ``shift`` with it; a claim
    is a score above shift / 2. One patient's images share ``finding_shared`` of the finding's latent variance and
    ``score_shared`` of the score's.
    """

    prevalence: float
    shift: float
    finding_shared: float = 0.4
    score_shared: float = 0.3

    def truth(self) -> dict[str, float]:
        """The metrics of the whole population, in closed form."""
        normal = NormalDist()
        hit, p = normal.cdf(self.shift / 2), self.prevalence
        return {
            "AUROC": normal.cdf(self.shift / 2**0.5),
            "accuracy": hit,
            "F1": 2 * p * hit / (p + p * hit + (1 - p) * (1 - hit)),
            "sensitivity": hit,
        }

    def draw(self, patients: int, rng: np.random.Generator) -> "Sample":
        images = np.minimum(1 + rng.poisson(1.5, patients), 8)
        patient = np.repeat(np.arange(patients), images)

        def latent(shared: float) -> NDArray[np.float64]:
            common, own = rng.normal(size=patients)[patient], rng.normal(size=len(patient))
            mixed: NDArray[np.float64] = np.sqrt(shared) * common + np.sqrt(1 - shared) * own
            return mixed

        reference = latent(self.finding_shared) > NormalDist().inv_cdf(1 - self.prevalence)
        score = self.shift * reference + latent(self.score_shared)
        return Sample([f"p{index:05d}" for index in patient], reference, score, score > self.shift / 2)


@dataclass(frozen=True)
class Sample:
    patient: list[str]
    reference: NDArray[np.bool_]
    score: NDArray[np.float64]
    claim: NDArray[np.bool_]

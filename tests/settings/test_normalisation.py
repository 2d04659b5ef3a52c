"""Constants of the normalisation fit each other, and are taken as fixed ones where nothing else is said."""

import pytest

from napari_unetvnet.errors import SettingsProblem
from napari_unetvnet.settings import TrainJob, TrainSettings, checked

FIXED = {"normalise_mean": (100, 80), "normalise_std": (20, 10)}


@pytest.mark.parametrize("kind", [TrainSettings, TrainJob])
@pytest.mark.parametrize("said", [{}, {"normalise": "fixed"}])
@pytest.mark.parametrize(
    "values", [FIXED, {"normalise_window": "-160 240"}, {"normalise_mean": "1", "normalise_std": (2,)}]
)
def test_constants_are_fixed_ones(kind, said, values):
    files = {"image": "a.tif", "label": "b.tif"} if kind is TrainJob else {}
    chosen = checked(kind, said | values | files)
    assert chosen.normalise == "fixed"
    assert "normalise" in chosen.model_fields_set


def test_constants_of_a_job_that_leaves_the_rest_open_are_fixed_ones():
    job = checked(TrainJob, FIXED | {"normalise": "auto", "image": "a.tif", "label": "b.tif"})
    assert (job.normalise, job.normalise_mean) == ("fixed", (100, 80))


@pytest.mark.parametrize(
    ("values", "fragments"),
    [
        ({"normalise": "fixed"}, ["0 means and 0 deviations", "normalise_window"]),
        ({"normalise": "fixed", "normalise_mean": (1, 2)}, ["2 means and 0 deviations"]),
        ({"normalise_std": (1,)}, ["0 means and 1 deviations"]),
        (FIXED | {"normalise": "zscore"}, ["normalise_mean and normalise_std are", "not zscore"]),
        ({"normalise": "dataset", "normalise_window": (0, 1)}, ["normalise_window is", "not dataset"]),
        (
            FIXED | {"normalise_window": (0, 1)},
            ["normalise_mean and normalise_std and normalise_window", "or a window"],
        ),
        ({"normalise_window": (0, 1, 2)}, ["normalise_window=0 1 2"]),
        ({"normalise_window": (0, 1, 5, 5)}, ["normalise_window=0 1 5 5", "a higher value"]),
        ({"normalise_mean": (1,), "normalise_std": (0,)}, ["normalise_std", "greater than 0"]),
        ({"normalise_mean": (float("nan"),), "normalise_std": (1,)}, ["normalise_mean", "finite"]),
    ],
)
def test_constants_that_do_not_fit_are_refused_with_a_sentence(values, fragments):
    with pytest.raises(SettingsProblem) as caught:
        checked(TrainSettings, values)
    (line,) = caught.value.lines
    assert line.endswith(".")
    for fragment in fragments:
        assert fragment in line

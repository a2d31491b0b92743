import json

import pytest

from gato_gym.options import PlanOptions


def test_text_defaults_to_the_layouts_way():
    assert PlanOptions().text == "changes"
    assert PlanOptions(layout="paper").text == "always"
    assert PlanOptions(layout="paper", text="changes").text == "changes"


def test_json_round_trip():
    options = PlanOptions(
        layout="lean",
        vector_mean=(0.5, 2),
        vector_std=(1, 0.25),
        grids=("image",),
        stacks=("camera",),
        skip=("a/b",),
        memory="none",
    )
    assert PlanOptions.from_json(json.loads(json.dumps(options.to_json()))) == options
    assert hash(PlanOptions.from_json(options.to_json())) == hash(options)


def test_lists_become_tuples():
    assert PlanOptions(grids=["image"]).grids == ("image",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layout": "dense"}, r"layout is 'dense'.*\['paper', 'lean'\]"),
        ({"image_fit": "crop"}, "image_fit"),
        ({"text": "never"}, "text is 'never'"),
        ({"memory": "some"}, "memory"),
        ({"on_nan": "skip"}, "on_nan"),
        ({"patch_size": 0}, "patch_size is 0"),
        ({"vector_size": 2.5}, "vector_size is 2.5"),
        ({"text_refresh": True}, "text_refresh is True"),
        ({"grids": "image"}, r"expected a tuple, \('image',\)"),
        ({"vector_mean": (1.0,)}, "1 vector_mean and 0 vector_std"),
        ({"vector_mean": (1.0,), "vector_std": (0.0,)}, "above zero"),
        ({"vector_mean": (float("nan"),), "vector_std": (1.0,)}, "finite"),
    ],
)
def test_values_outside_the_choices_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        PlanOptions(**change)


def test_unknown_fields_are_refused_by_name():
    with pytest.raises(ValueError, match="no field 'patchsize'"):
        PlanOptions.from_json({"patchsize": 16})

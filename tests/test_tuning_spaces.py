"""Search spaces: what their text says, and what is refused before anything is trained."""

import pytest
from toy import SETTINGS

from seqssvae.config.settings import from_dict, merge
from seqssvae.errors import ConfigurationError
from seqssvae.recipes.named import with_recipe
from seqssvae.tuning.spaces import Choice, Interval, check_spaces, nested, parse_spaces

RATE = "optimizer.learning_rate"


def test_a_space_is_what_its_text_says():
    spaces = parse_spaces(
        {
            RATE: "log 1e-4 1e-2",
            "model": {"latent_size": "int 4 10 3", "cell": ["gru", "lstm"], "encoder.hidden_size": "log 8 64"},
            "model.dropout": "uniform 0 0.5",
            "model.encoder.widths": [[1, 2], [3]],
            "model.decoder.context": "choice null 1",
            "data.separator": "choice ' ' _",
        }
    )
    assert spaces == {
        RATE: Interval(1e-4, 1e-2, log=True),
        "model.latent_size": Interval(4, 10, whole=True, step=3),
        "model.cell": Choice(("gru", "lstm")),
        "model.encoder.hidden_size": Interval(8, 64, whole=True, log=True),
        "model.dropout": Interval(0.0, 0.5),
        "model.encoder.widths": Choice(((1, 2), (3,))),
        "model.decoder.context": Choice((None, 1)),
        "data.separator": Choice((" ", "_")),
    }
    assert parse_spaces({path: str(space) for path, space in spaces.items() if "widths" not in path}) == {
        path: space for path, space in spaces.items() if "widths" not in path
    }
    assert parse_spaces({"model.latent_size": "int 4 11 3"})["model.latent_size"] == spaces["model.latent_size"]


@pytest.mark.parametrize(
    ("path", "space", "message"),
    [
        ("optimizer.learning_rat", "log 1 2", "there is no field optimizer.learning_rat; did you mean optimizer.learn"),
        ("model", "choice 1 2", "there is no field model"),
        ("model.cell", "log 1 2", "must be 'choice VALUE VALUE ...', since model.cell must be one of gru, lstm"),
        ("model.cell", ["gru", "rnn"], "model.cell must be one of gru, lstm, not 'rnn'"),
        ("model.cell", ["gru", "gru"], "two or more different values"),
        ("model.cell", "choice", "two or more different values"),
        ("model.latent_size", "uniform 1 2", "must be 'int LOW HIGH"),
        ("model.latent_size", "int 1.5 3", "of whole numbers, not 'int 1.5 3'"),
        (RATE, "log 0 1", "LOW above 0 and below HIGH"),
        (RATE, "log 1 2 3", "must be 'log LOW HIGH'"),
        (RATE, "uniform 2 1", "LOW below HIGH"),
        (RATE, "uniform 0 1 2", "a STEP between them"),
        (RATE, "log a b", "of numbers, not 'log a b'"),
        (RATE, "uniform 'a", "must be 'log LOW HIGH'"),
        (RATE, 3, "must be 'log LOW HIGH'"),
    ],
)
def test_a_wrong_space_is_refused(path, space, message):
    with pytest.raises(ConfigurationError, match=message.replace("(", r"\(")):
        parse_spaces({path: space})


def checked(space: dict, **fields: object) -> None:
    own = merge(SETTINGS, nested(fields))
    check_spaces(
        parse_spaces(space), from_dict(own), lambda chosen: from_dict(with_recipe("ssvae", merge(own, chosen)))
    )


@pytest.mark.parametrize(
    ("space", "fields", "message"),
    [
        ({}, {}, "Nothing is searched"),
        ({"training.metric": ["elbo", "loss"]}, {}, "it decides what trials are compared by"),
        ({"training.seed": "int 0 9"}, {}, "it decides what trials are compared by"),
        ({"data.validation_fraction": "uniform 0.1 0.5"}, {}, "compared on the same rows"),
        ({"data.minimum_count": "int 1 3"}, {"training.metric": "elbo"}, "changes what training.metric: elbo is"),
        ({"data.max_length": "int 5 9"}, {}, "set data.too_long: truncate"),
        ({"objective.alpha": "uniform 1 9"}, {"training.metric": "loss"}, "changes the loss"),
        ({"model.dropout": "uniform 0 2"}, {}, "The space of model.dropout has 2.0: model.dropout must be"),
        ({"optimizer.weight_decay": "log 1e-4 1"}, {}, "weight_decay is for optimizer.name: adamw"),
    ],
)
def test_what_cannot_be_compared_or_configured_is_refused_before_anything_is_trained(space, fields, message):
    with pytest.raises(ConfigurationError, match=message):
        checked(space, **fields)


def test_a_value_that_goes_with_some_values_of_the_others_is_accepted():
    checked({"optimizer.weight_decay": [0.0, 0.1], "optimizer.name": ["adam", "adamw"]})
    with pytest.raises(ConfigurationError, match=r"The space of optimizer\.name has 'adam'"):  # with no weight decay
        checked({"optimizer.weight_decay": "log 1e-4 1", "optimizer.name": ["adam", "adamw"]})
    checked({"data.minimum_count": "int 1 3", "data.max_length": "int 5 9"}, **{"data.too_long": "truncate"})

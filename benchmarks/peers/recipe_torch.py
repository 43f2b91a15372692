"""The recipe in Pyro: expand everything by K, fold it into the batch, one `nn.GRU`, all logits at once.

It is what one arrives at by following the answers to the question that this project started from. Same networks as
`seqssvae_torch` with `every_step` conditioning and a GRU, and the same number of weights but for `nn.GRU`'s second
biases; a batch is padded to its longest row.
"""

import pyro
import torch
from jaxtyping import Int
from pyro import distributions as dist
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, config_enumerate
from torch import Tensor, nn

from benchmarks.sizes import Sizes

PAD, START = 0, 2


class Recipe(nn.Module):
    """Encoder, heads and decoder of the semi-supervised sequence autoencoder."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        embedding, hidden, latent, labels = sizes.embedding, sizes.hidden, sizes.latent, sizes.labels
        self.encoder_embedding = nn.Embedding(sizes.vocabulary, embedding)
        self.encoder = nn.GRU(embedding, hidden, batch_first=True, bidirectional=True)
        self.classifier = nn.Linear(2 * hidden, labels)
        self.latent = nn.Sequential(nn.Linear(2 * hidden + labels, hidden), nn.Tanh())
        self.loc = nn.Linear(hidden, latent)
        self.scale = nn.Sequential(nn.Linear(hidden, latent), nn.Softplus())
        self.decoder_embedding = nn.Embedding(sizes.vocabulary, embedding)
        self.initial = nn.Sequential(
            nn.Linear(latent + labels, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh()
        )
        self.decoder = nn.GRU(embedding + latent + labels, hidden, batch_first=True)
        self.output = nn.Linear(hidden, sizes.vocabulary)

    def features(self, x: Int[Tensor, "B T"]) -> Tensor:
        """Last states of both directions."""
        packed = nn.utils.rnn.pack_padded_sequence(
            self.encoder_embedding(x), (x != PAD).sum(1), batch_first=True, enforce_sorted=False
        )
        return torch.cat(list(self.encoder(packed)[1]), -1)

    def logits(self, x: Int[Tensor, "B T"], y: Tensor, z: Tensor) -> Tensor:
        """Logits of every symbol, `(K, B, T, V)` or `(B, T, V)`."""
        shape = z.shape[:-1]
        inputs = nn.functional.pad(x[:, :-1], (1, 0), value=START)
        condition = torch.cat([z, y], -1).reshape(-1, z.shape[-1] + y.shape[-1])
        embedded = self.decoder_embedding(inputs).expand(*shape, -1, -1).reshape(len(condition), x.shape[1], -1)
        everything = torch.cat([embedded, condition[:, None].expand(-1, x.shape[1], -1)], -1)
        outputs, _ = self.decoder(everything, self.initial(condition)[None])
        return self.output(outputs).reshape(*shape, x.shape[1], -1)

    def model(self, x: Int[Tensor, "B T"], y: Tensor | None = None) -> None:
        """p(x, y, z)."""
        pyro.module("recipe", self)
        with pyro.plate("rows", len(x)):
            y = pyro.sample("y", dist.OneHotCategorical(torch.ones(self.sizes.labels)), obs=y)
            zeros = torch.zeros(self.sizes.latent)
            z = pyro.sample("z", dist.Normal(zeros, zeros + 1).to_event(1))
            symbols = dist.Categorical(logits=self.logits(x, y, z)).mask(x != PAD).to_event(1)
            pyro.sample("x", symbols, obs=x)

    def guide(self, x: Int[Tensor, "B T"], y: Tensor | None = None) -> None:
        """q(y, z | x)."""
        with pyro.plate("rows", len(x)):
            features = self.features(x)
            if y is None:
                y = pyro.sample("y", dist.OneHotCategorical(logits=self.classifier(features)))
            features = features.expand(*y.shape[:-1], -1)
            hidden = self.latent(torch.cat([features, y], -1))
            pyro.sample("z", dist.Normal(self.loc(hidden), self.scale(hidden) + 1e-4).to_event(1))


class RecipeTrainer:
    """Takes steps with `TraceEnum_ELBO` and Adam.

    Args:
        sizes: Of the model.
        enumerate: `parallel` or `sequential`.
    """

    def __init__(self, sizes: Sizes, enumerate: str = "parallel") -> None:
        pyro.clear_param_store()
        pyro.enable_validation(False)
        self.recipe = Recipe(sizes)
        self.guide = config_enumerate(self.recipe.guide, enumerate, expand=True)
        self.elbo = TraceEnum_ELBO(max_plate_nesting=1)
        self.optimizer = torch.optim.Adam(self.recipe.parameters(), lr=1e-3)

    def step(self, x: Int[Tensor, "B T"]) -> float:
        """One step of the optimiser on rows without labels."""
        self.optimizer.zero_grad()
        loss = self.elbo.differentiable_loss(self.recipe.model, self.guide, x) / len(x)
        loss.backward()
        nn.utils.clip_grad_norm_(self.recipe.parameters(), 5.0)
        self.optimizer.step()
        return loss.item()

    def labelled_step(self, x: Int[Tensor, "B T"], y: Int[Tensor, " B"]) -> float:
        """One step of the optimiser on rows with labels."""
        self.optimizer.zero_grad()
        one_hot = nn.functional.one_hot(y, self.recipe.sizes.labels).float()
        loss = Trace_ELBO().differentiable_loss(self.recipe.model, self.recipe.guide, x, one_hot) / len(x)
        loss.backward()
        nn.utils.clip_grad_norm_(self.recipe.parameters(), 5.0)
        self.optimizer.step()
        return loss.item()

"""The PyTorch side of training_speed: the same network on the same kind of tokens; needs torch and nothing of this project.

Takes its settings as one JSON argument. The first line written, after the warm-up, tells version and size; then each line read
from stdin asks for a round of `steps` training steps, and each round is answered by one line, {"seconds": ...}.
"""

import json
import sys
import time

import torch
from torch import nn
from torch.nn import functional


class LanguageModel(nn.Module):
    """Embedding, one recurrent layer, projection where the sizes differ, tied output."""

    def __init__(self, cell: str, vocab_size: int, embedding_dim: int, units: int):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, embedding_dim)
        nn.init.normal_(self.embedding.weight, std=embedding_dim**-0.5)
        self.recurrent = {"gru": nn.GRU, "lstm": nn.LSTM}[cell](embedding_dim, units, batch_first=True)
        self.projection = nn.Linear(units, embedding_dim, bias=False) if units != embedding_dim else nn.Identity()

    def forward(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Return the logits, shape (batch, time, vocab_size), of token ids, shape (batch, time)."""
        states, _ = self.recurrent(self.embedding(token_ids))
        return functional.linear(self.projection(states), self.embedding.weight)


def make_step(settings: dict):
    """Return the model and a function that makes one training step and returns its loss."""
    torch.manual_seed(settings["seed"])
    vocab_size, batch_size, window = settings["vocab_size"], settings["batch_size"], settings["window"]
    model = LanguageModel(settings["cell"], vocab_size, settings["embedding_dim"], settings["units"])
    # The fused update is the fastest that PyTorch has on the CPU; epsilon as in Keras.
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3, eps=1e-7, fused=True)
    bfloat16 = settings["precision"] == "bfloat16"
    stream = torch.randint(3, vocab_size, (settings["num_tokens"],))

    def step() -> float:
        starts = torch.randint(0, len(stream) - window - 1, (batch_size, 1))
        windows = stream[starts + torch.arange(window + 1)]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
            logits = model(windows[:, :-1])
        loss = functional.cross_entropy(logits.float().reshape(-1, vocab_size), windows[:, 1:].reshape(-1))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    return model, step


def main() -> None:
    """Train a round for each line of stdin."""
    settings = json.loads(sys.argv[1])
    torch.set_num_threads(settings["threads"])
    model, step = make_step(settings)
    for _ in range(settings["warm_up_steps"]):
        step()
    num_parameters = sum(p.numel() for p in model.parameters())
    print(json.dumps({"version": f"PyTorch {torch.__version__}", "num_parameters": num_parameters}), flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        for _ in range(settings["steps"]):
            step()
        print(json.dumps({"seconds": time.perf_counter() - started}), flush=True)


if __name__ == "__main__":
    main()

"""What each process of a distributed training runs: it reads its jobs from standard input and reports every step on standard output.

Who it is and where the others are, it reads from the variables that TensorFlow (TF_CONFIG) or Keras (KERAS_DISTRIBUTION_*) define; without
them it is alone. `distributed.py` starts these processes on one machine. On a cluster, set the variables on each machine and run

    python -m slm_helpers.training.distributed_worker < job.json

where job.json holds json.dumps(worker_input({0: job})) of `distributed`.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from slm_helpers._backend import keras
from slm_helpers.data.files import atomic_write
from slm_helpers.models.language_model import any_length, build_language_model, recurrent_layers
from slm_helpers.training.batches import WindowBatches
from slm_helpers.training.config import learning_rate_at
from slm_helpers.training.distributed import DistributedJob
from slm_helpers.training.shards import ShardedTokens
from slm_helpers.training.streams import StreamStep
from slm_helpers.training.workers import connect_to_launcher

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

WEIGHTS_NAME = "weights.safetensors"


def main() -> None:
    """Train the jobs that standard input names."""
    value, report = connect_to_launcher()
    cluster = JaxCluster() if keras.backend.backend() == "jax" else TensorFlowCluster(value["step_timeout"])
    for size in value["probe"]:
        report({"kind": "sum", "size": size, "seconds": cluster.time_sums(size)})
    for number, settings in value["jobs"].items():
        keras.backend.clear_session()  # so that layers have the same names in every job
        cluster.enter()
        run_job(DistributedJob.from_json(settings), cluster, lambda values, number=int(number): report({"job": number} | values))


def run_job(job: DistributedJob, cluster: "JaxCluster | TensorFlowCluster", report: Callable[[dict[str, Any]], None]) -> None:
    """Train one job as worker `cluster.rank` of `cluster.size`, from its last checkpoint on if there is one."""
    config, tokens = job.filled_config, ShardedTokens(job.shards)
    batches = WindowBatches(tokens, window=config.window, batch_size=config.batch_size, seed=config.seed)
    if batches.batch_size != config.batch_size:
        raise ValueError(f"{job.shards} holds windows for a batch of {batches.batch_size} only, not {config.batch_size}. Use more text.")
    keras.utils.set_random_seed(config.seed)  # every worker draws the same first weights
    model = build_language_model(tokens.vocab_size, **job.network)
    if not job.unrolled:
        for layer in recurrent_layers(model):
            any_length(layer)
    trainer = cluster.trainer(model, job)
    checkpoints = _Checkpoints(job, tokens.code, cluster)
    losses = checkpoints.load(trainer.variables)
    report({"kind": "start", "step": len(losses)})
    sent, payload = [], 0
    for step in range(len(losses), job.steps):
        trainer.optimizer.learning_rate = learning_rate_at(config, step, job.steps)
        facts = trainer.step(*own_rows(batches.batch(*divmod(step, len(batches)))[:2], cluster.rank, cluster.size), step)
        losses.append(facts["loss_nats"])
        payload += facts.pop("payload_bytes")
        sent.append(_loopback_bytes())
        if (step + 1) % job.checkpoint_steps == 0 or step + 1 == job.steps:
            checkpoints.save(trainer.variables, losses)
        report({"kind": "step", "step": step + 1} | facts)
    checkpoints.save_weights(model)
    made = max(1, len(sent))
    # Without the first step, in which the workers get to know one another.
    traffic = (sent[-1] - sent[0]) / (made - 1) if made > 2 and sent[0] is not None else None
    facts = {"losses": losses, "num_parameters": model.count_params(), "payload_bytes": payload / made}
    report({"kind": "end", "sent_bytes": traffic if cluster.size > 1 else 0.0} | facts)


def own_rows(arrays: tuple[np.ndarray, ...], rank: int, size: int) -> tuple[np.ndarray, ...]:
    """Return the rows of a global batch that worker `rank` of `size` computes."""
    rows = len(arrays[0]) // size
    return tuple(array[rank * rows : (rank + 1) * rows] for array in arrays)


class TensorFlowCluster:
    """The other workers, reached through tf.distribute.MultiWorkerMirroredStrategy.

    Of the strategy we use the cluster and its sums. The weights are ordinary variables, one copy a worker, and the loop is ours: `fit`
    fails under this strategy in Keras 3 (https://github.com/keras-team/keras/issues/20585), and `optimizer.apply` within it clips the
    gradient of each worker before the sum, where one process clips the sum.
    """

    def __init__(self, timeout: float):
        import tensorflow as tf

        self.tf, self.strategy, self.rank, self.size = tf, None, 0, 1
        if "TF_CONFIG" in os.environ:
            facts = json.loads(os.environ["TF_CONFIG"])
            self.rank, self.size = facts["task"]["index"], len(facts["cluster"]["worker"])
            options = tf.distribute.experimental.CommunicationOptions(timeout_seconds=timeout)
            self.strategy = tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
        self._mean = tf.function(self._all_mean, autograph=False)

    def enter(self) -> None:
        """Prepare for a job."""

    def mean(self, vector: Any) -> Any:
        """Return the mean of a float32 vector over all workers."""
        return vector if self.strategy is None else self._mean(vector)

    def _all_mean(self, vector: Any) -> Any:
        tf = self.tf

        def reduce(values: Any) -> Any:  # identity: so that the tensor stands on a device, which the sum asks for
            return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, tf.identity(values))

        return self.strategy.run(reduce, args=(vector,))

    def time_sums(self, size: int, *, repeats: int = 30) -> list[float]:
        """Return how long each of some sums of a vector of `size` numbers takes; the first, which sets things up, is left out."""
        vector, times = self.tf.ones(size), []
        for _ in range(repeats + 1):
            started = time.perf_counter()
            self.mean(vector).numpy()
            times.append(time.perf_counter() - started)
        return times[1:]

    def trainer(self, model: keras.Model, job: DistributedJob) -> "TensorFlowTrainer":
        """Return what makes the steps of a job."""
        return TensorFlowTrainer(self, model, job)


class TensorFlowTrainer:
    """Gradient of the own rows -> mean over the workers -> update. Or, with local steps: updates of one's own -> mean of the weights."""

    def __init__(self, cluster: TensorFlowCluster, model: keras.Model, job: DistributedJob):
        self.tf, self.cluster, self.job = cluster.tf, cluster, job
        self.compiled = StreamStep(model, job.filled_config)
        self.weights, self.optimizer = model.trainable_variables, self.compiled.optimizer
        self.variables = [*model.variables, *self.optimizer.variables]
        self.shapes = [tuple(weight.shape) for weight in self.weights]
        self._gradient = self.tf.function(self._compute_gradient, autograph=False)
        self._update = self.tf.function(self._apply, autograph=False)
        same = cluster.mean(self._flat(self.weights))
        if float(self.tf.reduce_max(self.tf.abs(same - self._flat(self.weights)))) > 1e-6:
            raise ValueError("The workers began with different weights: a checkpoint or the seed is not the same for all.")

    def step(self, inputs: np.ndarray, targets: np.ndarray, step: int) -> dict[str, float]:
        """Make step number `step` (from 0) on the worker's own rows."""
        started = time.perf_counter()
        total = 0.0
        for x, y in zip(np.split(inputs, self.job.accumulate), np.split(targets, self.job.accumulate), strict=True):
            total += self._gradient(x, y)  # loss and gradient in one vector: one sum over the network
        vector = total / float(self.job.accumulate)
        loss = float(vector[0])  # waits for the computation
        computed, payload = time.perf_counter(), 0
        if self.job.local_steps == 1:
            vector = self.cluster.mean(vector)
            loss, payload = float(vector[0]), 4 * len(vector)
        reduced = time.perf_counter()
        self._update(vector[1:])
        if self.job.local_steps > 1 and (step + 1) % self.job.local_steps == 0:
            before, vector = time.perf_counter(), self._flat(self.weights)
            payload = 4 * len(vector)
            self._assign(self.cluster.mean(vector))
            reduced += time.perf_counter() - before
        payload = payload if self.cluster.size > 1 else 0
        ended = time.perf_counter()
        seconds = {"compute_seconds": ended - started - (reduced - computed), "reduce_seconds": reduced - computed}
        return {"loss_nats": loss, "payload_bytes": payload} | seconds

    def _compute_gradient(self, inputs: Any, targets: Any) -> Any:
        tf = self.tf
        with tf.GradientTape() as tape:
            ones, zeros = tf.ones(inputs.shape), tf.zeros(inputs.shape[:1])
            loss = self.compiled([inputs, targets, ones, zeros], training=True)
        gradients = tape.gradient(loss, [weight.value for weight in self.weights])
        return tf.concat([[loss], self._flat(gradients)], axis=0)

    def _apply(self, flat: Any) -> None:
        self.optimizer.apply(self._split(flat), self.weights)

    def _assign(self, flat: Any) -> None:
        for weight, values in zip(self.weights, self._split(flat), strict=True):
            weight.assign(values)

    def _flat(self, tensors: list) -> Any:
        return self.tf.concat([self.tf.reshape(self.tf.convert_to_tensor(each), [-1]) for each in tensors], axis=0)

    def _split(self, flat: Any) -> list:
        parts = self.tf.split(flat, [int(np.prod(shape)) for shape in self.shapes])
        return [self.tf.reshape(part, shape) for part, shape in zip(parts, self.shapes, strict=True)]


class JaxCluster:
    """The other workers, reached through keras.distribution: Keras' own step, compiled for all devices of all processes."""

    def __init__(self):
        self.rank = int(os.environ.get("KERAS_DISTRIBUTION_PROCESS_ID", "0"))
        self.size = int(os.environ.get("KERAS_DISTRIBUTION_NUM_PROCESSES", "1"))
        if self.size > 1:
            if "SLM_LOOPBACK_ONLY" in os.environ:
                _gloo_on_loopback()
            keras.distribution.initialize()  # before the first computation

    def enter(self) -> None:
        """Prepare for a job: split all batches from now on. Keras forgets it when a session is cleared."""
        if self.size > 1:
            keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))

    def trainer(self, model: keras.Model, job: DistributedJob) -> "JaxTrainer":
        """Return what makes the steps of a job."""
        return JaxTrainer(self, model, job)


class JaxTrainer:
    """Keras' train_on_batch on the own rows of a batch; sums of gradients are part of the compiled step."""

    def __init__(self, cluster: JaxCluster, model: keras.Model, job: DistributedJob):
        self.cluster, self.compiled = cluster, StreamStep(model, job.filled_config)
        self.optimizer = self.compiled.optimizer
        self.variables = [*model.variables, *self.optimizer.variables]
        self.payload = 4 * (model.count_params() + 1) if cluster.size > 1 else 0

    def step(self, inputs: np.ndarray, targets: np.ndarray, step: int) -> dict[str, float]:
        """Make a step; its sums cannot be timed apart from the rest."""
        started = time.perf_counter()
        loss = self.compiled.train(inputs, targets, np.ones(inputs.shape, "float32"), np.zeros(len(inputs), "float32"))
        seconds = {"compute_seconds": time.perf_counter() - started, "reduce_seconds": 0.0}
        return {"loss_nats": loss, "payload_bytes": self.payload} | seconds


def _gloo_on_loopback() -> None:
    """Let gloo listen on 127.0.0.1. By itself it takes the address that the machine's name stands for; JAX has no setting for it."""
    from functools import partial

    from jaxlib import _jax

    _jax.make_gloo_tcp_collectives = partial(_jax.make_gloo_tcp_collectives, hostname="127.0.0.1")


class _Checkpoints:
    """Files step-000010-0of1.safetensors: one a step where all workers are alike, one a worker and step where they are not."""

    def __init__(self, job: DistributedJob, data: str, cluster: Any):
        self.folder = Path(job.checkpoint_dir) if job.checkpoint_dir else None
        self.files = cluster.size if job.local_steps > 1 else 1
        self.own = cluster.rank if self.files > 1 else 0
        self.writes, self.leads = cluster.rank < self.files, cluster.rank == 0
        described = job.as_json()
        for name in ("shards", "checkpoint_dir", "checkpoint_steps", "unrolled"):
            described.pop(name)  # a place or a pace, not what is trained
        self.code = hashlib.sha256(json.dumps([described, data], sort_keys=True).encode()).hexdigest()

    def save(self, variables: list, losses: list[float]) -> None:
        """Write the variables and the losses up to now; older files go, but for those of the step before."""
        if self.folder is None or not self.writes:
            return
        tensors = {str(i): np.atleast_1d(keras.ops.convert_to_numpy(variable)) for i, variable in enumerate(variables)}
        metadata = {"losses": json.dumps(losses), "job": self.code}
        with atomic_write(self._path(len(losses), self.own), "wb") as file:
            file.write(save(tensors, metadata=metadata))
        for old in sorted(self.folder.glob(f"step-*-{self.own}of{self.files}.safetensors"))[:-2]:
            old.unlink()

    def load(self, variables: list) -> list[float]:
        """Set the variables to those of the last step that is there for all workers; returns the losses up to it."""
        steps = self._complete_steps()
        if not steps:
            return []
        path = self._path(max(steps), self.own)
        with safe_open(path, framework="numpy") as file:
            if file.metadata()["job"] != self.code:
                raise ValueError(f"{path} belongs to another job. Choose another checkpoint_dir, or remove its files to start anew.")
            for i, variable in enumerate(variables):
                variable.assign(file.get_tensor(str(i)).reshape(tuple(variable.shape)))
            return json.loads(file.metadata()["losses"])

    def save_weights(self, model: keras.Model) -> None:
        """Write the weights of the trained model by path."""
        if self.folder is None or not self.leads:
            return
        with atomic_write(self.folder / WEIGHTS_NAME, "wb") as file:
            file.write(save({weight.path: keras.ops.convert_to_numpy(weight) for weight in model.weights}))

    def _complete_steps(self) -> list[int]:
        if self.folder is None:
            return []
        steps = [int(path.name.split("-")[1]) for path in self.folder.glob(f"step-*-0of{self.files}.safetensors")]
        return [step for step in steps if all(self._path(step, rank).exists() for rank in range(self.files))]

    def _path(self, step: int, rank: int) -> Path:
        return self.folder / f"step-{step:06d}-{rank}of{self.files}.safetensors"


def _loopback_bytes() -> int | None:
    """Return how many bytes the loopback device has carried, where the workers have it to themselves."""
    if "SLM_PRIVATE_LOOPBACK" not in os.environ:
        return None
    lines = Path("/proc/net/dev").read_text(encoding="utf-8").splitlines()
    return next(int(line.split(":")[1].split()[0]) for line in lines if line.strip().startswith("lo:"))


if __name__ == "__main__":
    main()

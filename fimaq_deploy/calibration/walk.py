"""The way along the chain of blocks: each is searched, learned and frozen, behind what the ones before it became."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from torch import Tensor, nn

from fimaq_deploy.calibration import parallel
from fimaq_deploy.calibration.budget import images_in_a_pass
from fimaq_deploy.calibration.checkpoints import Checkpoints, resumed
from fimaq_deploy.calibration.device import of, place_of
from fimaq_deploy.calibration.learning.activations import ActivationStore
from fimaq_deploy.calibration.learning.batches import relative_error, run_batches
from fimaq_deploy.calibration.learning.chain_gradients import ChainGradients
from fimaq_deploy.calibration.learning.outputs import Divergence, Outputs
from fimaq_deploy.calibration.learning.reconstruct import BlockRecord, Limits, reconstruct_block
from fimaq_deploy.calibration.learning.scale_search import search_stage
from fimaq_deploy.calibration.learning.softmax_search import search_softmax
from fimaq_deploy.calibration.learning.tune import tune
from fimaq_deploy.calibration.network.quantized_copy import stages_of
from fimaq_deploy.calibration.quantizers.layers import freeze
from fimaq_deploy.calibration.rest import numbered
from fimaq_deploy.recipe import Recipe

# Called as progress(steps done, all steps, name of the step that starts).
Progress = Callable[[int, int, str], None]


class Walk:
    """One way along the chain: every stage is searched, learned and frozen, then both boundaries move past it."""

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        seed: int,
        images: Tensor,
        logits: Tensor,
        store: ActivationStore,
        outputs: Outputs,
        at_once: int,
        progress: Progress | None,
        guide: Divergence | None = None,
    ) -> None:
        """guide: what the blocks are learned by instead of the outputs' own divergence (`calibration.rest`)."""
        self.model, self.recipe, self.seed = model, recipe, seed
        self.images, self.logits, self.store = images, logits, store
        self.outputs, self.at_once = outputs, at_once
        self.stages = outputs.stages(stages_of(model))
        self.progress = progress or (lambda done, steps, name: None)
        self.steps = len(self.stages) + bool(recipe.tuning.joint_iterations)
        self.guide, self.references = guide or outputs.divergence, logits
        if guide is not None:
            self.references = store.collect(numbered(logits, recipe.reconstruction.batch_size), len(logits))
        self._warm = False  # no block has learned yet
        self._gradients = ChainGradients(self.stages, recipe.reconstruction.temperature, self.guide)

    def blocks(self, checkpoints: Checkpoints) -> Iterator[BlockRecord]:
        """The record of every block, as it is finished."""
        count = len(self.images)
        fp_in = q_in = self.images
        for position, stage in enumerate(self.stages):
            self._sow(position)
            self.progress(position, self.steps, stage.name)
            size = self._passed(fp_in)
            z = self.store.collect(run_batches(stage.module, fp_in, size), count)
            record = resumed(checkpoints, position, stage.module)
            if record is None:
                record = self._learn(position, (fp_in, q_in), z)
                checkpoints.save(position, stage.module, record)
            yield record
            q_out = self.store.collect(run_batches(stage.module, q_in, size), count)
            if position:
                self.store.release(fp_in, q_in)
            fp_in, q_in = z, q_out
        self._gradients.forget()

    def _learn(self, position: int, boundary: tuple[Tensor, Tensor], z: Tensor) -> BlockRecord:
        search, settings = self.recipe.scale_search, self.recipe.reconstruction
        module = self.stages[position].module
        sample = boundary[1][: search.images].to(place_of(module))
        group, size = parallel.current(), min(settings.batch_size, self.at_once)
        search_stage(module, sample.split(size), search.candidates, self._passed(sample) // size)
        if search.softmax == "products":
            search_softmax(module, sample, search.candidates)
        group.broadcast(list(module.parameters()))
        limits = Limits(self.at_once, self._warm, self._gradients)
        record = reconstruct_block(
            self.stages, position, boundary, z, self.references, settings, self.store, self.guide, limits
        )
        self._warm = True
        group.broadcast(list(module.parameters()))
        freeze(module)
        return record

    def _sow(self, position: int) -> None:
        """Each block has its own random stream, so that resuming changes nothing, and so has each process."""
        number = (self.seed * 1009 + position + parallel.current().rank * 1_000_003) % 2**63
        of(place_of(self.model)).seed(number)

    def _passed(self, inputs: Tensor) -> int:
        """How many images a pass takes together."""
        device = next(self.model.parameters()).device
        return images_in_a_pass(inputs, device, self.recipe.reconstruction.batch_size, self.at_once)

    def tuned(self, teacher: nn.Module, at_once: int) -> BlockRecord:
        """Joint tuning, recorded like a block whose output is the logits. at_once: images in one graph of the chain."""
        settings = self.recipe.tuning
        self._sow(len(self.stages))
        self.progress(len(self.stages), self.steps, "joint tuning")
        started = time.perf_counter()
        whole, size = self.outputs.joining(self.model), min(settings.batch_size, self.at_once)
        before = float(relative_error(run_batches(whole, self.images, size), self.logits))
        chain, divergence = self.outputs.stages(stages_of(teacher)), self.outputs.divergence
        tune(self.stages, chain, self.images, settings, divergence, at_once)
        after = float(relative_error(run_batches(whole, self.images, size), self.logits))
        return BlockRecord("joint tuning", before, after, settings.joint_iterations, time.perf_counter() - started)

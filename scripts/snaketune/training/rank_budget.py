"""What AdaLoRA (arXiv 2303.10512) does besides training factors."""

from typing import Any

import torch
from peft import PeftModel, PeftType


class RankBudget:
    """Ranks that fall to a budget by the importance of each, and a penalty on factors that aren't orthogonal.

    A checkpoint holds its state.
    """

    def __init__(self, model: PeftModel):
        self.tuner: Any = model.base_model
        self.config: Any = model.active_peft_config
        named = list(model.named_parameters())
        self.right, self.left = ([one for name, one in named if f".{kind}." in name] for kind in ("lora_A", "lora_B"))

    def penalty(self) -> torch.Tensor:
        """Return the mean distance of the factors' inner products from the identity matrix, weighted (equation 4)."""
        # (rank, inputs) and (outputs, rank).
        grams = [*(one @ one.T for one in self.right), *(one.T @ one for one in self.left)]
        found = [torch.linalg.norm(gram - torch.eye(len(gram), device=gram.device)) for gram in grams]
        weighted: torch.Tensor = self.config.orth_reg_weight * torch.stack(found).mean()
        return weighted

    def allocate(self, step: int) -> None:
        """Update importances after a step (from 1), whose gradients are still there, and mask what is over the budget."""
        self.tuner.update_and_allocate(step)

    def state_dict(self) -> dict[str, Any]:
        ranks = self.tuner.rankallocator
        names = ("ipt", "exp_avg_ipt", "exp_avg_unc")
        return {"pattern": self.config.rank_pattern, **{name: getattr(ranks, name) for name in names}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.config.rank_pattern = state.pop("pattern")
        device = self.right[0].device
        for name, tensors in state.items():
            setattr(self.tuner.rankallocator, name, {key: value.to(device) for key, value in tensors.items()})


def budget_of(model: Any) -> RankBudget | None:
    """Return the budget of an AdaLoRA model, nothing of any other."""
    adaptive = isinstance(model, PeftModel) and model.active_peft_config.peft_type == PeftType.ADALORA
    return RankBudget(model) if adaptive else None

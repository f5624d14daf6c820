"""Autonomous Preference Optimization: one preferred reply against all the teachers' (arXiv 2510.04142).

Not TRL's ``apo_zero`` or ``apo_down``, which are another paper's.
"""

import torch
from torch import Tensor


def apo_loss(
    policy_logps: Tensor,
    reference_logps: Tensor,
    beta: float,
    mask: Tensor | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """The Plackett-Luce loss of each study, in nats.

    With r = beta (log pi_theta - log pi_ref): -log [ exp r_0 / (exp r_0 + sum_u w_u exp r_u) ]. With one negative
    it is DPO's sigmoid loss (Rafailov et al. 2023); without any it is 0. Source: arXiv 2510.04142, the objective
    of stage 3; the weights are ours, all 1 there.

    Args:
        policy_logps: (B, 1+N) summed log-probs of whole replies; column 0 is the preferred one.
        reference_logps: the same under the frozen reference.
        beta: above 0.
        mask: (B, 1+N) bool, false for a negative that is not there; column 0 is taken as true.
        weights: (B, 1+N), not negative: how much each negative counts; column 0 is taken as 1.

    Returns:
        (B,).

    Raises:
        ValueError: shapes differ, there is no column, or ``beta`` is not above 0.
    """
    if policy_logps.shape != reference_logps.shape or policy_logps.ndim != 2 or policy_logps.shape[1] < 1:
        raise ValueError(f"Log-probs are (B, 1+N), not {policy_logps.shape} and {reference_logps.shape}")
    if not beta > 0:
        raise ValueError(f"beta is {beta}, and must be above 0")
    # Taken relative to the preferred reply first: large rewards would cancel in float32.
    rewards = beta * (policy_logps - reference_logps)
    ahead = rewards[:, 1:] - rewards[:, :1]
    if weights is not None:
        ahead = ahead + weights[:, 1:].to(rewards).log()
    if mask is not None:
        ahead = ahead.masked_fill(~mask[:, 1:].bool(), -torch.inf)
    return torch.logsumexp(torch.cat([torch.zeros_like(rewards[:, :1]), ahead], dim=1), dim=1)

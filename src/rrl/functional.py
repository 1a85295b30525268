"""The equations of policy-gradient learning on padded tensors: pure functions, tensors in and tensors out.

Every [batch, time] argument obeys the index convention of ``types.py``. Cells where ``mask`` is false may hold
anything, infinities and NaN included: they change neither a result nor a gradient.
"""

from typing import Literal

import torch
from torch import Tensor

KLEstimator = Literal["k1", "k2", "k3"]


def token_logprobs(logits: Tensor, tokens: Tensor) -> Tensor:
    """Log-probability (nats) of each token: log softmax(logits)[token].

    ``logits`` [..., vocabulary] and ``tokens`` [...] are aligned: logits[i] is the distribution of token i.
    """
    chosen = logits.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    return chosen - logits.logsumexp(-1)


def entropy(logits: Tensor) -> Tensor:
    """Entropy (nats) of softmax(logits) over the last dimension: - sum p log p. A logit of -inf adds 0 to it."""
    log_p = logits.log_softmax(-1)
    # Mask the factor, not the product 0 * inf: masked afterwards it would still make the gradient NaN.
    return -(log_p.exp() * log_p.masked_fill(log_p.isneginf(), 0.0)).sum(-1)


def weighted_sum(values: Tensor, weight: Tensor) -> Tensor:
    """Sum of ``weight * values`` [batch, time], where cells of weight zero may hold anything."""
    return torch.where(weight != 0, values, 0.0).mul(weight).sum()


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``values`` over the cells where ``mask`` is true; 0 when there are none."""
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp(min=1)


def whiten(values: Tensor, mask: Tensor, *, epsilon: float = 1e-8) -> Tensor:
    """Shift and scale to mean 0 and variance 1 over the masked cells; 0 elsewhere.

    The variance is the population's (divided by n). ``epsilon`` is added to the variance.
    """
    centred = torch.where(mask, values - masked_mean(values, mask), 0.0)
    variance = masked_mean(centred.square(), mask)
    return centred * (variance + epsilon).rsqrt()


def whiten_apart(values: Tensor, mask: Tensor, part: Tensor) -> Tensor:
    """Whiten the rows of each part by themselves; ``part`` [batch] numbers each row's."""
    each = [whiten(values, mask & (part == number).unsqueeze(-1)) for number in part.unique()]
    return torch.stack(each).sum(0)


def centre_by_level(values: Tensor, mask: Tensor, level: Tensor) -> Tensor:
    """Subtract each level's own masked mean, then divide by the batch's standard deviation; 0 outside the mask.

    ``level`` [batch] numbers each row's level. Easy problems then cannot push the hard ones' advantages down.
    """
    centred = torch.zeros_like(values)
    for number in level.unique():
        rows = mask & (level == number).unsqueeze(-1)
        centred = torch.where(rows, values - masked_mean(values, rows), centred)
    return centred * (masked_mean(centred.square(), mask) + 1e-8).rsqrt()


def whiten_siblings(values: Tensor, mask: Tensor, group: Tensor, replayed: Tensor) -> Tensor:
    """Whiten the rows of fresh starts; centre the others per start state, and scale them together.

    ``group`` [batch] numbers start states, ``replayed`` [batch] is true where one was remembered. Those with a single
    row share a mean. It is the baseline of a state's continuations (SRPO, arXiv 2605.25507; AXPO, arXiv 2605.28774).
    """
    _, member = group.unique(return_inverse=True)
    alone = torch.bincount(member, replayed.to(values.dtype))[member] < 2
    state = torch.where(alone, -1, member)
    fresh, others = mask & ~replayed.unsqueeze(-1), mask & replayed.unsqueeze(-1)
    return whiten(values, fresh) + centre_by_level(values, others, state)


def generalised_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Advantages and returns by generalised advantage estimation (Schulman et al., arXiv 1506.02438, eq. 16).

        delta_t = r_t + gamma V_{t+1} - V_t,    A_t = delta_t + gamma lambda A_{t+1},    R_t = A_t + V_t

    Departure: time runs over the masked cells only, which are contiguous in a row. The last of them ends the
    episode, so that V and A after it are 0: nothing is bootstrapped across the end. Both results are 0 elsewhere.
    """
    rewards, values = (torch.where(mask, x, 0.0) for x in (rewards, values))
    following = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)
    deltas = rewards + gamma * following - values
    advantages = torch.zeros_like(values)
    running = torch.zeros_like(values[:, 0])
    for t in reversed(range(values.shape[1])):
        running = torch.where(mask[:, t], deltas[:, t] + gamma * lam * running, 0.0)
        advantages[:, t] = running
    return advantages, torch.where(mask, advantages + values, 0.0)


def advantages_between(rewards: Tensor, values: Tensor, known: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Advantages between points of known value, and the values (VinePPO, Kazemnejad et al., arXiv 2410.01679).

        A_t = sum_{i <= u < j} r_u + V_j - V_i    for i <= t < j, where i and j are two points in a row

    ``known`` [batch, time] is true where ``values`` holds that of the state in which the token was chosen. The masked
    cells of a row are contiguous; V is 0 after them, and up to the first point. The second result is V_i at each of
    them; both are 0 elsewhere.
    """
    rewards, values, known = torch.where(mask, rewards, 0.0), torch.where(known & mask, values, 0.0), known & mask
    gain, targets = torch.zeros_like(rewards[:, 0]), torch.zeros_like(rewards)
    for t in reversed(range(rewards.shape[1])):
        gain = rewards[:, t] + gain
        targets[:, t] = gain
        gain = torch.where(known[:, t], values[:, t], gain)
    last = torch.where(known, torch.arange(known.shape[1]), 0).cummax(1).values
    held = values.gather(1, last)
    return torch.where(mask, targets.gather(1, last) - held, 0.0), torch.where(mask, held, 0.0)


def kl_estimate(logprobs: Tensor, ref_logprobs: Tensor, kind: KLEstimator) -> Tensor:
    """Per-token estimate (nats) of KL(policy || reference) at tokens that the policy drew.

    With log r = ref_logprobs - logprobs (Schulman, "Approximating KL Divergence", 2020):
    k1 = -log r (unbiased), k2 = (log r)^2 / 2, k3 = r - 1 - log r (unbiased and never negative).

    Departure: log r is clamped to [-80, 80], beyond any token that was drawn, so that r is finite in float32.
    """
    # The clamp also stops the gradient of cells outside the mask: 0 * inf and 0 * NaN would be NaN.
    log_r = (ref_logprobs - logprobs).clamp(-80, 80)
    if kind == "k1":
        return -log_r
    if kind == "k2":
        return log_r.square() / 2
    return log_r.expm1() - log_r


def policy_gradient_loss(logprobs: Tensor, advantages: Tensor, weight: Tensor) -> Tensor:
    """The policy gradient without a ratio to an older policy (Williams, 1992): L = - sum_t w_t A_t logp_t.

    With advantages of 1 it is the cross-entropy of supervised training.
    """
    return -weighted_sum(torch.where(weight != 0, logprobs, 0.0) * advantages, weight)


def clipped_policy_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, weight: Tensor, *, clip_ratio: float
) -> tuple[Tensor, Tensor]:
    """PPO's clipped surrogate, negated (Schulman et al., arXiv 1707.06347, eq. 7), and the share of clipped tokens.

        L = - sum_t w_t min(rho_t A_t, clip(rho_t, 1 - eps, 1 + eps) A_t),    rho_t = exp(logp_t - old_logp_t)

    ``weight`` [batch, time] replaces the expectation. The second result is the weighted share of tokens where
    the clipped term is the smaller one.
    """
    acted = weight != 0
    ratio = torch.where(acted, logprobs - old_logprobs, 0.0).exp()
    free = ratio * advantages
    clipped = ratio.clamp(1 - clip_ratio, 1 + clip_ratio) * advantages
    loss = -weighted_sum(torch.minimum(free, clipped), weight)
    return loss, weighted_sum((clipped < free).to(weight.dtype), weight)


def truncated_importance(logprobs: Tensor, engine_logprobs: Tensor, weight: Tensor, *, cap: float) -> Tensor:
    """The ratio of each token's probability under the trainer's policy to that under the engine, at most ``cap``.

        c_t = min(exp(logp_t - logp_engine_t), C)

    Truncated importance sampling of Yao et al., "Your Efficient RL Framework Secretly Brings You Off-Policy RL
    Training", 2025: as a factor of a token's loss it corrects for an engine whose numbers differ from the trainer's.
    Both are of the policy before the update. 1 where ``weight`` is zero.
    """
    log_ratio = torch.where(weight != 0, logprobs - engine_logprobs, 0.0)
    return log_ratio.exp().clamp(max=cap)


def clipped_value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, weight: Tensor, *, cliprange_value: float
) -> tuple[Tensor, Tensor]:
    """Clipped squared error of the critic, and the share of clipped tokens.

        L = 1/2 sum_t w_t max((V_t - R_t)^2, (clip(V_t, V_old_t - eps, V_old_t + eps) - R_t)^2)

    As in OpenAI's PPO implementation (Huang et al., "The 37 implementation details of PPO", detail 9).
    """
    values, old_values, returns = (torch.where(weight != 0, x, 0.0) for x in (values, old_values, returns))
    near = torch.clamp(values, old_values - cliprange_value, old_values + cliprange_value)
    free, clipped = (values - returns).square(), (near - returns).square()
    loss = 0.5 * weighted_sum(torch.maximum(free, clipped), weight)
    return loss, weighted_sum((clipped > free).to(weight.dtype), weight)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """1 - Var(returns - values) / Var(returns) over the masked cells; 0 when the returns do not vary."""
    values, returns = (torch.where(mask, x, 0.0) for x in (values, returns))
    residual = returns - values
    spread = masked_mean((returns - masked_mean(returns, mask)).square(), mask)
    left = masked_mean((residual - masked_mean(residual, mask)).square(), mask)
    return torch.where(spread > 1e-12, 1 - left / spread.clamp(min=1e-12), torch.zeros_like(spread))


def group_advantages(scores: Tensor, group: Tensor) -> Tensor:
    """Score of each row relative to its group: (s - mean) / (std + 1e-6) (GRPO; Shao et al., arXiv 2402.03300, 4.1.2).

    ``scores`` and ``group`` are [batch]; the standard deviation is the population's. Equal scores, and a group of one,
    get 0.
    """
    centred, member, size = _centred(scores, group)
    variance = torch.zeros_like(size).index_add(0, member, centred.square()) / size
    return centred / (variance.sqrt()[member] + 1e-6)


def leave_one_out_advantages(scores: Tensor, group: Tensor) -> Tensor:
    """Score of each row less the mean of the others of its group (RLOO; Ahmadian et al., arXiv 2402.14740).

        A_i = s_i - 1 / (n - 1) sum_{j != i} s_j = n / (n - 1) (s_i - mean)

    ``scores`` and ``group`` are [batch]. Equal scores, and a group of one, get 0.
    """
    centred, member, size = _centred(scores, group)
    return centred * (size / (size - 1).clamp(min=1))[member]


def _centred(scores: Tensor, group: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scores less the mean of their group, each row's group from 0 on, and the number of rows of each group.

    Equal scores get exactly 0: their mean may be rounded, and an advantage divides by next to nothing.
    """
    _, member = group.unique(return_inverse=True)
    size = torch.bincount(member).to(scores.dtype)
    mean = torch.zeros_like(size).index_add(0, member, scores) / size
    low, high = (scores.new_zeros(len(size)).scatter_reduce(0, member, scores, end, include_self=False)
                 for end in ("amin", "amax"))  # fmt: skip
    return torch.where((low == high)[member], 0.0, scores - mean[member]), member, size


def recovery_credit(scores: Tensor, group: Tensor, part: Tensor) -> Tensor:
    """How much better the best continuation of a state is than that of the others (AXPO, arXiv 2605.28774).

        C_s = max_{i of s} score_i - mean over states s' of max_{i of s'} score_i

    All arguments are [batch]; the rows in ``part`` continue the states that ``group`` numbers. With scores of 0 and 1
    the maximum says whether any continuation succeeded. The first row of each state has its credit, others have 0.
    """
    rows = part.nonzero().squeeze(1)
    states, member = group[rows].unique(return_inverse=True)
    best = scores.new_full(states.shape, -torch.inf).scatter_reduce(0, member, scores[rows], "amax")
    first = rows[[int((member == state).nonzero()[0]) for state in range(len(states))]]
    credit, _, _ = _centred(best, torch.zeros_like(states))
    return torch.zeros_like(scores).index_put((first,), credit)


def bradley_terry_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Mean negative log-likelihood (nats) of the preferences: - log sigmoid(r_chosen - r_rejected).

    Both are [batch] rewards of pairs (Bradley and Terry, Biometrika 1952; Ouyang et al., arXiv 2203.02155, eq. 1).
    """
    return -torch.nn.functional.logsigmoid(chosen - rejected).mean()

"""Slow, plain float64 versions of the numerics: loops, no jax.

Written from the papers' equations, one scalar at a time, so that an error in
the code under test is not repeated here. Gradients are central differences.
"""

import math

import numpy as np


def nt_xent(embeddings, *, temperature, positive_prior=0.0):
  """Mean over all anchors of -log(p / (p + sum of negatives))."""
  views = np.asarray(embeddings, np.float64)
  batch = len(views)
  losses = []
  for video in range(batch):
    for view in range(2):
      anchor = views[video, view]
      positive = _exp_cosine(anchor, views[video, 1 - view], temperature)
      negatives = [
          _exp_cosine(anchor, views[other, other_view], temperature)
          for other in range(batch)
          if other != video
          for other_view in range(2)
      ]
      total = sum(negatives)
      if positive_prior > 0:
        share = len(negatives) * positive_prior * positive
        total = max(
            (total - share) / (1 - positive_prior),
            len(negatives) * math.exp(-1 / temperature),
        )
      losses.append(-math.log(positive / (positive + total)))
  return sum(losses) / len(losses)


def neighbour_nt_xent(embeddings, rows, weights, *, temperature):
  """NT-Xent whose positives are weighted: the partner 1, neighbours theirs."""
  views = np.asarray(embeddings, np.float64)
  losses = []
  for video, view in np.ndindex(views.shape[:2]):
    anchor = views[video, view]
    total = sum(
        _exp_cosine(anchor, views[other, other_view], temperature)
        for other, other_view in np.ndindex(views.shape[:2])
        if (other, other_view) != (video, view)
    )
    positives = [(1.0, views[video, 1 - view])]
    for row, weight in zip(rows[video], weights[video], strict=True):
      positives += [(float(weight), views[row, other]) for other in range(2)]
    terms = [
        weight * math.log(_exp_cosine(anchor, positive, temperature) / total)
        for weight, positive in positives
    ]
    losses.append(-sum(terms) / sum(weight for weight, _ in positives))
  return sum(losses) / len(losses)


def frame_order_loss(logits, frame_permutation, frame_mask):
  """Mean over valid slots of the masked cross-entropy."""
  logits = np.asarray(logits, np.float64)
  losses = []
  for video in range(len(logits)):
    for slot, frame in enumerate(frame_permutation[video]):
      if not frame_mask[video][frame]:
        continue
      total = sum(
          math.exp(logits[video, slot, other])
          for other in range(logits.shape[-1])
          if frame_mask[video][other]
      )
      losses.append(math.log(total) - logits[video, slot, frame])
  return sum(losses) / len(losses) if losses else 0.0


def frame_order_accuracy(logits, frame_permutation, frame_mask):
  """Share of valid slots whose best valid class is the right one."""
  hits = []
  for video in range(len(logits)):
    for slot, frame in enumerate(frame_permutation[video]):
      if frame_mask[video][frame]:
        valid = [
            c for c in range(len(frame_mask[video])) if frame_mask[video][c]
        ]
        best = max(valid, key=lambda c: logits[video][slot][c])
        hits.append(best == frame)
  return sum(hits) / len(hits)


def scene_change_labels(frames, frame_mask, *, threshold_std):
  """Labels and validity of one view, `frames` [frames, dim]."""
  frames = np.asarray(frames, np.float64)
  cosines = {}
  for first in range(len(frames) - 1):
    if frame_mask[first] and frame_mask[first + 1]:
      cosines[first] = _cosine(frames[first], frames[first + 1])
  labels = [False] * (len(frames) - 1)
  if cosines:
    mean = sum(cosines.values()) / len(cosines)
    variance = sum((c - mean) ** 2 for c in cosines.values()) / len(cosines)
    threshold = mean - threshold_std * math.sqrt(variance)
    for first, cosine in cosines.items():
      labels[first] = cosine < threshold - 1e-5
  return labels, [first in cosines for first in range(len(frames) - 1)]


def scene_change_loss(logits, labels, valid):
  """Mean binary cross-entropy over the valid pairs."""
  losses = []
  for logit, label, counts in zip(
      np.ravel(logits), np.ravel(labels), np.ravel(valid), strict=True
  ):
    if counts:
      probability = 1 / (1 + math.exp(-float(logit)))
      losses.append(-math.log(probability if label else 1 - probability))
  return sum(losses) / len(losses) if losses else 0.0


def reconstruction_loss(frame_errors, frame_mask, visible_mask):
  """Mean error of the valid frames that are not visible."""
  errors = np.asarray(frame_errors, np.float64)
  hidden = [
      errors[video, view, frame]
      for video, view, frame in np.ndindex(errors.shape)
      if frame_mask[video][view][frame] and not visible_mask[video][view][frame]
  ]
  return sum(hidden) / len(hidden) if hidden else 0.0


def quantisation_loss(relaxed_codes):
  """Mean of (|h| - 1)^2."""
  values = np.ravel(np.asarray(relaxed_codes, np.float64))
  return sum((abs(value) - 1) ** 2 for value in values) / len(values)


def bit_balance_loss(relaxed_codes):
  """Mean over bits of the squared mean over rows."""
  rows = _rows(relaxed_codes)
  means = [sum(row[bit] for row in rows) / len(rows) for bit in _bits(rows)]
  return sum(mean**2 for mean in means) / len(means)


def decorrelation_loss(relaxed_codes):
  """Mean over bits of their squared second moments with all others, summed."""
  rows = _rows(relaxed_codes)
  squares = [
      (sum(row[one] * row[other] for row in rows) / len(rows)) ** 2
      for one in _bits(rows)
      for other in _bits(rows)
      if one != other
  ]
  return sum(squares) / len(rows[0])


def gradient(function, point, *, step=1e-6):
  """Central differences of a scalar function: error about step^2 = 1e-12.

  Rounding adds 1e-16 / step = 1e-10 of the function's value.
  """
  point = np.array(point, np.float64)
  result = np.zeros_like(point)
  for index in np.ndindex(point.shape):
    moved = point.copy()
    moved[index] = point[index] + step
    above = function(moved)
    moved[index] = point[index] - step
    result[index] = (above - function(moved)) / (2 * step)
  return result


def encoder_block(params, tokens, frame_mask, *, num_heads):
  """One pre-norm block on one row, from a tree of float64 arrays."""
  tokens = np.asarray(tokens, np.float64)
  frames, width = tokens.shape
  head_dim = width // num_heads
  normed = layer_norm(tokens, **params["attention_norm"])
  qkv = dense(normed, params["attention"]["qkv"])
  gathered = np.zeros((frames, width))
  for head in range(num_heads):
    part = slice(head * head_dim, (head + 1) * head_dim)
    of_head = qkv[:, 3 * part.start : 3 * part.stop]
    query, key, value = np.split(of_head, 3, axis=-1)
    for slot in range(frames):
      weights = [
          math.exp(query[slot] @ key[other] / math.sqrt(head_dim))
          if frame_mask[other]
          else 0.0
          for other in range(frames)
      ]
      for other in range(frames):
        share = weights[other] / sum(weights)
        gathered[slot, part] += share * value[other]
  tokens = tokens + dense(gathered, params["attention"]["out"])
  hidden = dense(layer_norm(tokens, **params["mlp_norm"]), params["mlp_in"])
  cubic = math.sqrt(2 / math.pi) * (hidden + 0.044715 * hidden**3)
  hidden = 0.5 * hidden * (1 + np.tanh(cubic))
  return tokens + dense(hidden, params["mlp_out"])


def dense(inputs, params):
  """Matrix product plus bias."""
  return inputs @ params["kernel"] + params["bias"]


def layer_norm(tokens, *, scale=1.0, bias=0.0, epsilon=1e-6):
  """Zero mean and unit variance over the last axis, then affine."""
  tokens = np.asarray(tokens, np.float64)
  mean = tokens.mean(-1, keepdims=True)
  variance = ((tokens - mean) ** 2).mean(-1, keepdims=True)
  return (tokens - mean) / np.sqrt(variance + epsilon) * scale + bias


def _cosine(one, other):
  norm = math.sqrt(one @ one) * math.sqrt(other @ other)
  if norm == 0:
    return float(one @ one == other @ other)
  return float(one @ other) / norm


def _exp_cosine(one, other, temperature):
  return math.exp(_cosine(one, other) / temperature)


def _rows(relaxed_codes):
  codes = np.asarray(relaxed_codes, np.float64)
  return codes.reshape(-1, codes.shape[-1])


def _bits(rows):
  return range(rows.shape[1])

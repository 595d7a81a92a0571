"""What a video may be called, in any kind of input."""

import re

from chain_jax.errors import InputError

# All ids of a split lie in one array, as wide as its longest.
_MAX_LENGTH = 1024
# Control characters, line ends, and what is no character of UTF-8 by itself:
# ids go into text files, one a line, and onto terminals.
_FORBIDDEN = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def check_name(name: str) -> None:
  """Refuses a name that could spoil an index, a list or a terminal.

  Args:
    name: An id, or a file's name. It is only a name: `../a` leads nowhere.

  Raises:
    InputError: If it is empty, too long, or holds a control character or what
      is not UTF-8.
  """
  if not 0 < len(name) <= _MAX_LENGTH:
    raise InputError(
        f"a video's id or a file's name must have 1 to {_MAX_LENGTH} characters,"
        f" got {len(name)} ({ascii(name[:40])}); shorten it."
    )
  if _FORBIDDEN.search(name):
    raise InputError(
        "a video's id or a file's name must be UTF-8 without control"
        f" characters, got {ascii(name[:200])}; rename it."
    )


def shown(name: str) -> str:
  """Returns a name fit to be printed, whatever is in it, and not too long.

  >>> shown("a\\nb.mp4")
  'a\\\\nb.mp4'
  """
  escaped = _FORBIDDEN.sub(lambda found: ascii(found[0])[1:-1], name)
  return escaped[:_MAX_LENGTH]

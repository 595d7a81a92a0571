"""Opens a video file and finds the stream that counts, by PyAV."""

import contextlib
import functools
import pathlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from chain_jax import errors
from chain_jax.data.video_completeness import VideoError
from chain_jax.data.video_pixels import MAX_PIXELS

# Containers and bare streams of video, those of games and old players too. Left
# out is what names other files (playlists, MLV), and what FFmpeg makes a video of
# without it being one: text, single pictures.
_FORMATS = (
    "mov,mp4,matroska,webm,avi,mpeg,mpegts,mpegvideo,flv,asf,gif,ogg,rm,mxf,"
    "dv,nut,ivf,h261,h263,h264,hevc,vvc,m4v,obu,vc1,wtv,nsv,yuv4mpegpipe,"
    "4xm,anm,avs,avs2,avs3,bethsoftvid,bfi,bink,c93,cavsvideo,cdxl,cine,dfa,"
    "dhav,dirac,dnxhd,dsicin,dxa,ea,ea_cdata,film_cpk,filmstrip,flic,frm,gdv,"
    "gxf,hnm,idcin,iff,ipmovie,iv8,ivr,jv,kux,live_flv,lmlm4,lvf,lxf,"
    "mjpeg_2000,mm,moflex,mtv,mv,mvi,mxg,nuv,paf,pmp,psxstr,pva,r3d,rl2,roq,"
    "rpl,sga,simbiosis_imx,smjpeg,smk,smush,thp,tiertexseq,tmv,ty,vc1test,"
    "vividas,vivo,vmd,wc3movie,wsvqa,xmv,yop"
)


@functools.cache
def import_av() -> ModuleType:
  """Returns PyAV, set to log errors and nothing else.

  Raises:
    errors.InputError: If it is not installed, or older than 18.0.
  """
  try:
    import av
  except ImportError as error:
    raise errors.InputError(
        "reading video files needs PyAV, which is not installed; run"
        " pip install 'chain_jax[video]'."
    ) from error
  if int(av.__version__.partition(".")[0]) < 18:
    raise errors.InputError(
        f"reading video files needs PyAV 18.0 or newer, got {av.__version__};"
        " run pip install 'chain_jax[video]'."
    )
  # Complaints are counted, see `videos._Decoder`, and shown to nobody;
  # two videos may well complain of the same.
  av.logging.set_level(av.logging.ERROR)
  av.logging.set_skip_repeated(False)
  return av


def _metadata_options(av: ModuleType) -> dict[str, str]:
  """Lets a title pass that is not UTF-8, as PyAV from 19 on does by itself."""
  is_older = int(av.__version__.partition(".")[0]) < 19
  return {"metadata_errors": "replace"} if is_older else {}


@contextlib.contextmanager
def open_video(av: ModuleType, path: pathlib.Path) -> Iterator[tuple[Any, Any]]:
  """Opens a file and finds its best stream of moving pictures.

  Args:
    av: From `import_av`.
    path: Of a file.

  Yields:
    The `av.container.InputContainer` and its video stream, ready to decode in
    this thread; the other streams are left unread.

  Raises:
    VideoError: If no video is in it, or none that can be decoded.
    av.FFmpegError, OSError: If it cannot be opened.
  """
  _check_file(path)
  with av.open(
      # Else a name such as `concat:a|b` or `http://...` is not a file's.
      f"file:{path}",
      **_metadata_options(av),
      container_options={
          "format_whitelist": _FORMATS,
          "protocol_whitelist": "file",
      },
  ) as container:
    stream = _video_stream(av, container)
    for other in container.streams:
      if other.index != stream.index:
        other.discard = av.stream.Discard.all
    stream.thread_type = "NONE"
    stream.thread_count = 1
    # A damaged picture must not grow beyond what any video has.
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    yield container, stream


def _check_file(path: pathlib.Path) -> None:
  if not path.is_file():
    raise VideoError("not a file" if path.exists() else "no such file")
  if path.stat().st_size == 0:
    raise VideoError("the file is empty")


def _video_stream(av: ModuleType, container: Any) -> Any:
  """Finds the best stream of moving pictures.

  Raises:
    VideoError: If there is none, or it cannot be decoded.
  """
  flags = av.stream.Disposition
  moving = [
      stream
      for stream in container.streams.video
      if not stream.disposition & (flags.attached_pic | flags.timed_thumbnails)
  ]
  if not moving:
    held = {other.type for other in container.streams} - {"video"}
    only = f", only {' and '.join(sorted(map(str, held)))}" if held else ""
    raise VideoError(f"no video is in it{only}")
  best = container.streams.best("video")
  stream = best if best in moving else moving[0]
  if stream.codec_context is None:
    raise VideoError("its video is in a format that FFmpeg cannot decode")
  if stream.width * stream.height > MAX_PIXELS:
    raise VideoError(f"a frame has {stream.width} x {stream.height} pixels")
  return stream

"""Containers, codecs and streams of the video corpus."""

from fractions import Fraction

from benchmarks import video_corpus_files as files
from benchmarks.video_corpus_files import Case, ffmpeg_case, pyav_case

_OPEN = "x264-params=open-gop=1:keyint=12:min-keyint=12:bframes=3:scenecut=0"
_PYRAMID = "g=24 bf=3 x264-params=b-pyramid=normal:b-adapt=0:scenecut=0"
_HEVC = "x265-params=log-level=none:keyint=12:min-keyint=12:scenecut=0"
_ALTREF = "auto-alt-ref=1 lag-in-frames=16 cpu-used=8 g=30"
_AV1 = "preset=12 g=24 svtav1-params=film-grain=0"

# File, encoder, pixel format, encoder options, container options.
_WRITTEN = [
    ("h264_closed.mp4", "libx264", "yuv420p", "g=12", ""),
    ("h264_open.mp4", "libx264", "yuv420p", _OPEN, ""),
    ("h264_pyramid.mp4", "libx264", "yuv420p", _PYRAMID, ""),
    ("h264_intra.mp4", "libx264", "yuv420p", "g=1", ""),
    ("h264_noB.mp4", "libx264", "yuv420p", "bf=0 g=250", ""),
    (
        "h264_refresh.mp4",
        "libx264",
        "yuv420p",
        "x264-params=intra-refresh=1:keyint=12",
        "",
    ),
    ("h264_slices.mp4", "libx264", "yuv420p", "slices=4 g=12", ""),
    (
        "h264_fragmented.mp4",
        "libx264",
        "yuv420p",
        _OPEN,
        "movflags=frag_keyframe+empty_moov+default_base_moof",
    ),
    (
        "h264_faststart.mp4",
        "libx264",
        "yuv420p",
        "g=12",
        "movflags=faststart",
    ),
    (
        "h264_hybrid.mp4",
        "libx264",
        "yuv420p",
        "g=12",
        "movflags=frag_every_frame",
    ),
    ("hevc_open.mp4", "libx265", "yuv420p", f"{_HEVC}:open-gop=1", ""),
    ("hevc_closed.mp4", "libx265", "yuv420p", f"{_HEVC}:open-gop=0", ""),
    ("hevc_pyramid.mp4", "libx265", "yuv420p", f"{_HEVC}:bframes=8", ""),
    ("mpeg4.mp4", "mpeg4", "yuv420p", "bf=2 g=12", ""),
    ("av1.mp4", "libsvtav1", "yuv420p", _AV1, ""),
    ("vp9.mp4", "libvpx-vp9", "yuv420p", _ALTREF, ""),
    ("mjpeg.mp4", "mjpeg", "yuvj420p", "", ""),
    ("h264.m4v", "libx264", "yuv420p", "", ""),
    (
        "h264_interlaced.mov",
        "libx264",
        "yuv420p",
        "x264-params=interlaced=1",
        "",
    ),
    ("mjpeg.mov", "mjpeg", "yuvj422p", "", ""),
    ("prores.mov", "prores_ks", "yuv422p10le", "", ""),
    ("prores_alpha.mov", "prores_ks", "yuva444p10le", "profile=4444", ""),
    ("qtrle.mov", "qtrle", "rgb24", "", ""),
    ("png.mov", "png", "rgb24", "", ""),
    ("rpza.mov", "rpza", "rgb555le", "", ""),
    ("svq1.mov", "svq1", "yuv410p", "", ""),
    ("mpeg2.mov", "mpeg2video", "yuv420p", "bf=2 g=12", ""),
    ("raw.mov", "rawvideo", "uyvy422", "", ""),
    ("v210.mov", "v210", "yuv422p10le", "", ""),
    ("jpeg2000.mov", "jpeg2000", "yuv420p", "", ""),
    ("h264.mkv", "libx264", "yuv420p", _PYRAMID, ""),
    ("h264_open.mkv", "libx264", "yuv420p", _OPEN, ""),
    ("h264_lossless.mkv", "libx264", "yuv444p", "qp=0 g=12", ""),
    ("h264_10bit.mkv", "libx264", "yuv420p10le", _PYRAMID, ""),
    ("h264_rgb.mkv", "libx264rgb", "rgb24", "qp=0 g=12", ""),
    ("hevc_open.mkv", "libx265", "yuv420p", f"{_HEVC}:open-gop=1", ""),
    ("hevc_10bit.mkv", "libx265", "yuv420p10le", f"{_HEVC}:open-gop=1", ""),
    ("mpeg1.mkv", "mpeg1video", "yuv420p", "bf=2 g=12", ""),
    ("mpeg2.mkv", "mpeg2video", "yuv420p", "bf=2 g=12", ""),
    (
        "mpeg2_interlaced.mkv",
        "mpeg2video",
        "yuv420p",
        "flags=+ilme+ildct g=9",
        "",
    ),
    ("vp8.mkv", "libvpx", "yuv420p", _ALTREF, ""),
    ("av1.mkv", "libsvtav1", "yuv420p", _AV1, ""),
    ("ffv1.mkv", "ffv1", "yuv420p10le", "level=3 g=5", ""),
    ("ffvhuff.nut", "ffvhuff", "yuv420p", "", ""),
    ("utvideo.avi", "utvideo", "yuv420p", "", ""),
    ("mjpeg.mkv", "mjpeg", "yuvj444p", "", ""),
    ("msmpeg4.mkv", "msmpeg4", "yuv420p", "", ""),
    ("dirac.mkv", "vc2", "yuv422p", "", ""),
    ("vp8_altref.webm", "libvpx", "yuv420p", _ALTREF, ""),
    ("vp9_altref.webm", "libvpx-vp9", "yuv420p", _ALTREF, ""),
    (
        "vp9_alpha.webm",
        "libvpx-vp9",
        "yuva420p",
        "cpu-used=8 auto-alt-ref=0",
        "",
    ),
    ("vp8_alpha.webm", "libvpx", "yuva420p", "cpu-used=8 auto-alt-ref=0", ""),
    ("av1.webm", "libsvtav1", "yuv420p10le", _AV1, ""),
    ("mpeg4_noB.avi", "mpeg4", "yuv420p", "g=12", ""),
    ("mpeg4_B.avi", "mpeg4", "yuv420p", "bf=2 g=12", ""),
    ("h264.avi", "libx264", "yuv420p", _PYRAMID, ""),
    ("mjpeg.avi", "mjpeg", "yuvj420p", "", ""),
    ("huffyuv.avi", "huffyuv", "yuv422p", "", ""),
    ("raw.avi", "rawvideo", "bgr24", "", ""),
    ("raw_420.avi", "rawvideo", "yuv420p", "", ""),
    ("cinepak.avi", "cinepak", "rgb24", "", ""),
    ("msvideo1.avi", "msvideo1", "rgb555le", "", ""),
    ("ffv1.avi", "ffv1", "bgr0", "", ""),
    ("msmpeg4v2.avi", "msmpeg4v2", "yuv420p", "", ""),
    ("snow.avi", "snow", "yuv420p", "", ""),
    ("zmbv.avi", "zmbv", "bgr0", "", ""),
    ("asv1.avi", "asv1", "yuv420p", "", ""),
    ("magicyuv.avi", "magicyuv", "gbrp", "", ""),
    ("ljpeg.avi", "ljpeg", "bgr24", "", ""),
    ("mpeg1.mpg", "mpeg1video", "yuv420p", "bf=2 g=12", ""),
    ("mpeg2.mpg", "mpeg2video", "yuv420p", "bf=2 g=12", ""),
    ("mpeg2.vob", "mpeg2video", "yuv420p", "bf=2 g=12 flags=+ilme+ildct", ""),
    ("mpeg2.ts", "mpeg2video", "yuv420p", "bf=2 g=12", ""),
    ("h264.ts", "libx264", "yuv420p", _PYRAMID, ""),
    ("h264_open.ts", "libx264", "yuv420p", _OPEN, ""),
    ("hevc.ts", "libx265", "yuv420p", f"{_HEVC}:open-gop=1", ""),
    ("h264.m2ts", "libx264", "yuv420p", _OPEN, "mpegts_m2ts_mode=1"),
    ("h264.mts", "libx264", "yuv420p", "x264-params=interlaced=1", ""),
    ("flv1.flv", "flv", "yuv420p", "", ""),
    ("h264.flv", "libx264", "yuv420p", _PYRAMID, ""),
    ("flashsv.flv", "flashsv", "bgr24", "", ""),
    ("h264.f4v", "libx264", "yuv420p", "", ""),
    ("wmv1.wmv", "wmv1", "yuv420p", "", ""),
    ("wmv2.wmv", "wmv2", "yuv420p", "g=12", ""),
    ("msmpeg4.asf", "msmpeg4", "yuv420p", "", ""),
    ("mpeg4.3gp", "mpeg4", "yuv420p", "", ""),
    ("h264.3g2", "libx264", "yuv420p", "", ""),
    ("gif.gif", "gif", "rgb8", "", ""),
    ("mpeg4.nut", "mpeg4", "yuv420p", "bf=2", ""),
    ("h264.nut", "libx264", "yuv420p", _PYRAMID, ""),
    ("mpeg2.mxf", "mpeg2video", "yuv420p", "bf=2 g=12", ""),
    ("h264.mxf", "libx264", "yuv420p", "g=12", ""),
    ("vp8.ivf", "libvpx", "yuv420p", _ALTREF, ""),
    ("vp9.ivf", "libvpx-vp9", "yuv420p", _ALTREF, ""),
    ("av1.ivf", "libsvtav1", "yuv420p", _AV1, ""),
]
# Raw streams; their own suffixes are not all among those that are taken.
_RAW = [
    ("raw_h264.m4v", "libx264", "h264", _PYRAMID),
    ("raw_h264_open.m4v", "libx264", "h264", _OPEN),
    ("raw_hevc.m4v", "libx265", "hevc", f"{_HEVC}:open-gop=1"),
    ("raw_mpeg4.m4v", "mpeg4", "m4v", "bf=2 g=12"),
    ("raw_mpeg2.m2v", "mpeg2video", "mpeg2video", "bf=2 g=12"),
    ("raw_mpeg1.mpeg", "mpeg1video", "mpeg1video", "bf=2 g=12"),
]
# File, encoder, pixel format, options, width, height, frames.
_SIZED = [
    ("h263.3gp", "h263", "yuv420p", "", 128, 96, 50),
    ("h263.avi", "h263", "yuv420p", "", 176, 144, 50),
    ("rv10.rm", "rv10", "yuv420p", "", 176, 144, 50),
    ("rv20.rm", "rv20", "yuv420p", "bf=0", 176, 144, 50),
    ("dnxhr.mov", "dnxhd", "yuv422p", "profile=dnxhr_lb", 256, 144, 30),
    ("dnxhr.mxf", "dnxhd", "yuv422p", "profile=dnxhr_lb", 256, 144, 30),
    ("dv.dv", "dvvideo", "yuv420p", "", 720, 576, 30),
    ("dv.avi", "dvvideo", "yuv420p", "", 720, 576, 30),
]
# These codecs have pixels of the television: 16:15 and 12:11.
_SHOWN = {
    ("dvvideo", 720): (768, 576),
    ("h263", 128): (140, 96),
    ("h263", 176): (192, 144),
}


def _raw(name, codec, container_format, options):
  return pyav_case(
      "raw streams",
      name,
      60,
      codec=codec,
      options=options,
      container_format=container_format,
  )


def _sized(name, codec, pixels, options, width, height, count):
  return pyav_case(
      "containers x codecs",
      name,
      lambda: files.pictures(count, width=width, height=height),
      codec=codec,
      pixels=pixels,
      options=options,
      size=_SHOWN.get((codec, width)),
      prepare=_pal if codec == "dvvideo" else None,
  )


def _pal(stream) -> None:
  stream.codec_context.sample_aspect_ratio = Fraction(16, 15)


def kinds() -> list[Case]:
  """Returns a case for each container and codec."""
  cases = [
      pyav_case(
          "containers x codecs",
          name,
          60,
          codec=codec,
          pixels=pixels,
          options=options,
          container=container,
      )
      for name, codec, pixels, options, container in _WRITTEN
  ]
  cases += [_raw(*row) for row in _RAW]
  cases += [_sized(*row) for row in _SIZED]
  cases += [
      ffmpeg_case("containers x codecs", name, 60, arguments)
      for name, arguments in (
          ("theora.ogv", "-c:v libtheora -q:v 8 -g 12"),
          ("theora.ogm", "-c:v libtheora -q:v 8 -f ogg"),
          ("theora.mkv", "-c:v libtheora -q:v 8"),
          ("xvid_packed.avi", "-c:v libxvid -bf 2 -g 12 -q:v 2"),
          ("aom.mkv", "-c:v libaom-av1 -cpu-used 8 -b:v 1M -g 24"),
          (
              "aom.mp4",
              "-c:v libaom-av1 -cpu-used 8 -b:v 1M -g 24 -usage realtime",
          ),
          (
              "vp9_10bit.webm",
              "-c:v libvpx-vp9 -pix_fmt yuv420p10le -cpu-used 8",
          ),
          ("speedhq.nut", "-c:v speedhq -pix_fmt yuv422p"),
          ("ffv1_level_1.nut", "-c:v ffv1 -level 1"),
          ("mjpeg2.avi", "-c:v mjpeg -pix_fmt yuvj420p -huffman default"),
          (
              "mpeg2_422.mxf",
              "-c:v mpeg2video -pix_fmt yuv422p -g 12 -bf 2 -q:v 2",
          ),
          ("cfhd.mov", "-c:v cfhd -pix_fmt yuv422p10"),
          ("hap.mov", "-c:v hap"),
          ("mpeg4_divx.divx", "-c:v mpeg4 -bf 2 -q:v 2 -vtag DIVX -f avi"),
          ("vcd.mpg", "-c:v mpeg1video -q:v 2 -g 15 -bf 2 -f vcd"),
          ("dvd.vob", "-c:v mpeg2video -q:v 2 -g 15 -bf 2 -f dvd"),
      )
  ]
  return cases

/* H.264 whose every macroblock is I_PCM: a stream that each decoder turns into the very bytes that went in. Names and
   orders of the fields are those of ITU-T H.264, sections 7.3 and E.1. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  uint8_t *data;
  size_t size, room;
  unsigned held, count;
} Bits;

static void byte(Bits *bits, uint8_t value) {
  if (bits->size == bits->room) bits->data = realloc(bits->data, bits->room = 2 * bits->room + 4096);
  bits->data[bits->size++] = value;
}
static void put(Bits *bits, unsigned value, int length) {
  while (length--) {
    bits->held = bits->held << 1 | (value >> length & 1);
    if (++bits->count == 8) byte(bits, bits->held), bits->count = bits->held = 0;
  }
}
/* ue(v); signed values that are 0 are the same in se(v). */
static void golomb(Bits *bits, unsigned value) {
  int length = 32 - __builtin_clz(value + 1);
  put(bits, 0, length - 1);
  put(bits, value + 1, length);
}
static void align(Bits *bits) {
  while (bits->count) put(bits, 0, 1);
}

/* A NAL unit with its start code and emulation prevention; `rbsp` is emptied. */
static void nal(Bits *stream, int ref_idc, int type, Bits *rbsp) {
  int zeros = 0;
  put(rbsp, 1, 1);
  align(rbsp);
  for (int i = 0; i < 4; i++) byte(stream, i == 3);
  byte(stream, ref_idc << 5 | type);
  for (size_t i = 0; i < rbsp->size; i++) {
    if (zeros == 2 && rbsp->data[i] <= 3) byte(stream, 3), zeros = 0;
    zeros = rbsp->data[i] ? 0 : zeros + 1;
    byte(stream, rbsp->data[i]);
  }
  rbsp->size = 0;
}

typedef struct {
  uint32_t signal_present, format, full_range, colours_present, primaries, transfer, matrix;
} Colours;

static void headers(Bits *stream, unsigned width, unsigned height, const Colours *colours) {
  Bits rbsp = {0};
  put(&rbsp, 66, 8);   /* profile_idc: baseline */
  put(&rbsp, 0xC0, 8); /* and main: no slice groups */
  put(&rbsp, 51, 8);   /* level_idc */
  golomb(&rbsp, 0);    /* seq_parameter_set_id */
  golomb(&rbsp, 4);    /* log2_max_frame_num_minus4 */
  golomb(&rbsp, 2);    /* pic_order_cnt_type: as decoded */
  golomb(&rbsp, 1);    /* max_num_ref_frames */
  put(&rbsp, 0, 1);    /* gaps_in_frame_num_value_allowed_flag */
  golomb(&rbsp, (width + 15) / 16 - 1);
  golomb(&rbsp, (height + 15) / 16 - 1);
  put(&rbsp, 7, 3); /* frame_mbs_only_flag, direct_8x8_inference_flag, frame_cropping_flag */
  golomb(&rbsp, 0);
  golomb(&rbsp, (16 - width % 16) % 16 / 2);
  golomb(&rbsp, 0);
  golomb(&rbsp, (16 - height % 16) % 16 / 2);
  put(&rbsp, 1, 1); /* vui_parameters_present_flag */
  put(&rbsp, 0, 2); /* no aspect ratio, no overscan */
  put(&rbsp, colours->signal_present, 1);
  if (colours->signal_present) {
    put(&rbsp, colours->format, 3);
    put(&rbsp, colours->full_range, 1);
    put(&rbsp, colours->colours_present, 1);
    if (colours->colours_present) {
      put(&rbsp, colours->primaries, 8);
      put(&rbsp, colours->transfer, 8);
      put(&rbsp, colours->matrix, 8);
    }
  }
  put(&rbsp, 0, 5); /* no chroma location, timing, HRD or picture structure */
  put(&rbsp, 3, 2); /* bitstream_restriction_flag, motion_vectors_over_pic_boundaries_flag */
  golomb(&rbsp, 0);
  golomb(&rbsp, 0);
  golomb(&rbsp, 10);
  golomb(&rbsp, 10);
  golomb(&rbsp, 0); /* max_num_reorder_frames */
  golomb(&rbsp, 1); /* max_dec_frame_buffering */
  nal(stream, 3, 7, &rbsp);
  golomb(&rbsp, 0); /* pic_parameter_set_id */
  golomb(&rbsp, 0);
  put(&rbsp, 0, 2); /* CAVLC, no field order */
  golomb(&rbsp, 0);
  golomb(&rbsp, 0);
  golomb(&rbsp, 0);
  put(&rbsp, 0, 3); /* no weighted prediction */
  golomb(&rbsp, 0); /* three quantiser offsets */
  golomb(&rbsp, 0);
  golomb(&rbsp, 0);
  put(&rbsp, 4, 3); /* deblocking_filter_control_present_flag */
  nal(stream, 3, 8, &rbsp);
  free(rbsp.data);
}

/* Where a picture lies: luma, and chroma with its distance from one value to the next of its kind. */
typedef struct {
  const uint8_t *y, *u, *v;
  unsigned pitch, chroma_pitch, step, width, height;
} Source;

static void plane(Bits *rbsp, const uint8_t *from, unsigned pitch, unsigned step, unsigned width, unsigned height,
                  unsigned left, unsigned top, unsigned size) {
  for (unsigned y = top; y < top + size; y++)
    for (unsigned x = left; x < left + size; x++)
      byte(rbsp, from[(size_t)(y < height ? y : height - 1) * pitch + (x < width ? x : width - 1) * step]);
}

/* One picture as a slice. `number` counts from the last IDR picture, which has 0; `idr_id` differs from IDR to IDR. */
static void slice(Bits *stream, const Source *source, unsigned number, unsigned idr_id) {
  Bits rbsp = {0};
  golomb(&rbsp, 0); /* first_mb_in_slice */
  golomb(&rbsp, 7); /* slice_type: I, and so are all slices of the picture */
  golomb(&rbsp, 0); /* pic_parameter_set_id */
  put(&rbsp, number % 256, 8);
  if (!number) golomb(&rbsp, idr_id % 65536);
  put(&rbsp, 0, number ? 1 : 2); /* dec_ref_pic_marking */
  golomb(&rbsp, 0);              /* slice_qp_delta */
  golomb(&rbsp, 1);              /* disable_deblocking_filter_idc */
  for (unsigned y = 0; y < source->height; y += 16)
    for (unsigned x = 0; x < source->width; x += 16) {
      const unsigned w = source->width / 2, h = source->height / 2;
      golomb(&rbsp, 25); /* mb_type: I_PCM */
      align(&rbsp);
      plane(&rbsp, source->y, source->pitch, 1, source->width, source->height, x, y, 16);
      plane(&rbsp, source->u, source->chroma_pitch, source->step, w, h, x / 2, y / 2, 8);
      plane(&rbsp, source->v, source->chroma_pitch, source->step, w, h, x / 2, y / 2, 8);
    }
  nal(stream, 1, number ? 1 : 5, &rbsp);
  free(rbsp.data);
}

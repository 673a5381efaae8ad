#!/usr/bin/env python3
"""What other libraries reach on this card, for the shapes that ./dev gpu measures.

Prints a Markdown table: PyTorch's matrix product (cuBLAS) and its scaled_dot_product_attention, and
FlashInfer's paged decode where that is installed. Medians of event times on random data; weights
rotate among several copies, so that no cache holds them.
"""
import statistics

import torch
import torch.nn.functional as F

HEADS, KV_HEADS, SIZE, WIDTH, HIDDEN = 32, 8, 128, 4096, 14336
RUNS, COPIES = 20, 4


def median_ms(body):
    times = []
    for i in range(-3, RUNS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        body(i % COPIES)
        end.record()
        end.synchronize()
        if i >= 0:
            times.append(begin.elapsed_time(end))
    return statistics.median(times)


def line(name, rows, ms, moved, flops):
    print(f"| {name} | {rows} | {ms:.4g} | {moved / ms / 1e6:.4g} | {flops / ms / 1e9:.4g} |",
          flush=True)


def noise(*shape):
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)


def products():
    shapes = (("ffn_in (gate and up)", 2 * HIDDEN), ("QKV", WIDTH + 2 * KV_HEADS * SIZE))
    for name, rows_out in shapes:
        weights = [noise(rows_out, WIDTH) for _ in range(COPIES)]
        for rows in (1, 4, 16, 64, 256, 512, 2048):
            x = noise(rows, WIDTH)
            ms = median_ms(lambda i, x=x, weights=weights: F.linear(x, weights[i]))
            line("torch " + name, rows, ms, 2 * rows_out * WIDTH, 2 * rows_out * WIDTH * rows)


def attention():
    for rows, context in ((64, 4096), (64, 1024)):
        q = noise(rows, HEADS, 1, SIZE)
        pairs = [(noise(rows, KV_HEADS, context, SIZE), noise(rows, KV_HEADS, context, SIZE))
                 for _ in range(2)]
        ms = median_ms(lambda i, q=q, pairs=pairs: F.scaled_dot_product_attention(
            q, *pairs[i % 2], enable_gqa=True))
        line(f"torch attention, contexts of {context}", rows, ms,
             4 * rows * KV_HEADS * context * SIZE, 4 * rows * HEADS * context * SIZE)
    q = noise(1, HEADS, 2048, SIZE)
    k, v = noise(1, HEADS, 2048, SIZE), noise(1, HEADS, 2048, SIZE)
    ms = median_ms(lambda i: F.scaled_dot_product_attention(q, k, v, is_causal=True))
    line("torch attention, causal over 2048", 2048, ms, 0, 2 * HEADS * 2048 * 2048 * SIZE)


def flashinfer_decode():
    try:
        import flashinfer
    except ImportError:
        print("| FlashInfer is not installed | | | | |")
        return
    rows, context, page = 64, 4096, 16
    pages = rows * context // page
    cache = noise(pages, 2, page, KV_HEADS, SIZE)
    q = noise(rows, HEADS, SIZE)
    room = torch.empty(128 << 20, dtype=torch.uint8, device="cuda")
    wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(room, "NHD")
    starts = torch.arange(rows + 1, dtype=torch.int32, device="cuda") * (context // page)
    table = torch.arange(pages, dtype=torch.int32, device="cuda")
    last = torch.full((rows,), page, dtype=torch.int32, device="cuda")
    wrapper.plan(starts, table, last, HEADS, KV_HEADS, SIZE, page, q_data_type=torch.bfloat16,
                 kv_data_type=torch.bfloat16)
    ms = median_ms(lambda i: wrapper.run(q, cache))
    line(f"FlashInfer paged decode, contexts of {context}", rows, ms,
         4 * rows * KV_HEADS * context * SIZE, 4 * rows * HEADS * context * SIZE)


def main():
    print(f"PyTorch {torch.__version__}, {torch.cuda.get_device_name(0)}")
    print("| case | rows | ms | GB/s | TFLOP/s |")
    print("|---|---:|---:|---:|---:|")
    products()
    attention()
    try:
        flashinfer_decode()
    except Exception as error:  # a library that is there and does not work is a line, not the end
        print(f"| FlashInfer: {type(error).__name__}: {str(error)[:100]} | | | | |")


main()

"""Writes a model of 1.1 billion random weights: the shape of a common small Llama, F16.

    random_model.py TOKENIZER.gguf OUT.gguf

Its speed is that of a trained model; its text is noise. The tokeniser is the other file's.
"""

import sys

import gguf
import numpy

WIDTH, LAYERS, HIDDEN, HEADS, KV_HEADS = 2048, 22, 5632, 32, 4
CONTEXT = 8192


def copy_tokenizer(reader, writer):
    for name, field in reader.fields.items():
        if name.startswith("tokenizer."):
            kind = field.types[0]
            inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), kind, inner)


def write_shape(writer, vocabulary):
    writer.add_name("random 1.1B")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(vocabulary)
    writer.add_file_type(1)


def main():
    source, target = sys.argv[1:]
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, "llama")
    random = numpy.random.default_rng(20)
    vocabulary = len(reader.fields["tokenizer.ggml.tokens"].data)
    kv_width = WIDTH // HEADS * KV_HEADS

    def matrix(name, rows, columns):
        values = random.standard_normal((rows, columns), dtype=numpy.float32)
        writer.add_tensor(name, (values / columns**0.5).astype(numpy.float16))

    def norm(name):
        writer.add_tensor(name, numpy.ones(WIDTH, dtype=numpy.float32))

    copy_tokenizer(reader, writer)
    write_shape(writer, vocabulary)
    matrix("token_embd.weight", vocabulary, WIDTH)
    for layer in range(LAYERS):
        at = f"blk.{layer}."
        norm(at + "attn_norm.weight")
        matrix(at + "attn_q.weight", WIDTH, WIDTH)
        matrix(at + "attn_k.weight", kv_width, WIDTH)
        matrix(at + "attn_v.weight", kv_width, WIDTH)
        matrix(at + "attn_output.weight", WIDTH, WIDTH)
        norm(at + "ffn_norm.weight")
        matrix(at + "ffn_gate.weight", HIDDEN, WIDTH)
        matrix(at + "ffn_up.weight", HIDDEN, WIDTH)
        matrix(at + "ffn_down.weight", WIDTH, HIDDEN)
    norm("output_norm.weight")
    matrix("output.weight", vocabulary, WIDTH)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()

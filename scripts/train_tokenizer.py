"""Train a byte-level BPE tokenizer with Phi-3's chat tokens on the corpus's training texts."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from snaketune.core import cli, errors, files, manifest
from snaketune.data.chat_template import CHAT_TEMPLATE, END, PAD, SPECIAL_TOKENS


def main() -> None:
    arguments = cli.job_parser(__doc__, "vocabulary, context", "--corpus --output-directory").parse_args()
    recipe, out = arguments.recipe, arguments.output_directory
    corpus = arguments.corpus.parent / "manifest.json"
    manifest.prove(corpus)

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe["vocabulary"],
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [row["text"] for row in files.read_jsonl(arguments.corpus) if row["split"] == "train"]
    tokenizer.train_from_iterator(texts, trainer)

    files.write_text(out / "tokenizer.json", tokenizer.to_str(pretty=True) + "\n")
    kind = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    special = {"bos_token": PAD, "eos_token": END, "pad_token": PAD, "unk_token": PAD, "chat_template": CHAT_TEMPLATE}
    files.write_json(out / "tokenizer_config.json", {"model_max_length": recipe["context"], **kind, **special})
    manifest.record(out, recipe, [corpus], [out / "tokenizer.json", out / "tokenizer_config.json"])
    print(f"{tokenizer.get_vocab_size()} tokens")


if __name__ == "__main__":
    errors.run(main)

//! What is known of each dataset.

use super::{Entry, HubFiles, Official, Origin, Split, SplitEntry};
use crate::data::Form;

const WIKITEXT_LICENCE: &str = "CC BY-SA 3.0, GFDL";
const WIKITEXT: Origin = Origin::Hub {
    repository: "Salesforce/wikitext",
    revision: "b08601e04326c79dfdd32d625aee71d232d685c3",
    folder: "wikitext",
};

/// A split of `WikiText`: `n_files` parquet files on the hub, one file as first published.
const fn wikitext(
    split: Split,
    pattern: &'static str,
    n_files: usize,
    patterns: &'static [&'static str],
    n_words: Option<u64>,
    text_sha256: Option<&'static str>,
) -> SplitEntry {
    SplitEntry {
        split,
        hub: Some(HubFiles {
            pattern,
            digits: 5,
            n_files,
            n_fetched: n_files,
        }),
        patterns,
        official: Official {
            n_words,
            text_sha256,
        },
    }
}

/// A split of numbered files of json lines, of which the first is fetched.
const fn shards(
    split: Split,
    pattern: &'static str,
    digits: usize,
    n_files: usize,
    patterns: &'static [&'static str],
) -> SplitEntry {
    SplitEntry {
        split,
        hub: Some(HubFiles {
            pattern,
            digits,
            n_files,
            n_fetched: 1,
        }),
        patterns,
        official: Official {
            n_words: None,
            text_sha256: None,
        },
    }
}

/// A split that the user brings.
const fn by_hand(
    split: Split,
    patterns: &'static [&'static str],
    n_words: Option<u64>,
) -> SplitEntry {
    SplitEntry {
        split,
        hub: None,
        patterns,
        official: Official {
            n_words,
            text_sha256: None,
        },
    }
}

/// Every dataset that has a name. Words are those of Merity and others (2016) and Mikolov and others (2010);
/// hashes those of the files as first published.
pub const ENTRIES: &[Entry] = &[
    Entry {
        name: "wikitext-2",
        title: "WikiText-2, raw: articles of Wikipedia",
        licence: WIKITEXT_LICENCE,
        form: Form::WikiText,
        origin: WIKITEXT,
        splits: &[
            wikitext(
                Split::Train,
                "wikitext-2-raw-v1/train-{}-of-00001.parquet",
                1,
                &[
                    "wikitext/wikitext-2-raw-v1/train-*.parquet",
                    "wikitext-2-raw/wiki.train.raw",
                ],
                None,
                None,
            ),
            wikitext(
                Split::Validation,
                "wikitext-2-raw-v1/validation-{}-of-00001.parquet",
                1,
                &[
                    "wikitext/wikitext-2-raw-v1/validation-*.parquet",
                    "wikitext-2-raw/wiki.valid.raw",
                ],
                Some(217_646),
                Some("4cd0f6876d07a413aa911261ff6d363c72d757d47f0fdd6015702014c89cb9c7"),
            ),
            wikitext(
                Split::Test,
                "wikitext-2-raw-v1/test-{}-of-00001.parquet",
                1,
                &[
                    "wikitext/wikitext-2-raw-v1/test-*.parquet",
                    "wikitext-2-raw/wiki.test.raw",
                ],
                Some(245_569),
                Some("173c87a53759e0201f33e0ccf978e510c2042d7f2cb78229d9a50d79b9e7dd08"),
            ),
        ],
    },
    Entry {
        name: "wikitext-2-unk",
        title: "WikiText-2 with rare words as <unk>",
        licence: WIKITEXT_LICENCE,
        form: Form::WikiText,
        origin: WIKITEXT,
        splits: &[
            wikitext(
                Split::Train,
                "wikitext-2-v1/train-{}-of-00001.parquet",
                1,
                &[
                    "wikitext/wikitext-2-v1/train-*.parquet",
                    "wikitext-2/wiki.train.tokens",
                ],
                Some(2_088_628),
                Some("9e9fa1ad55b1c2c95b08e37dd8e653f638fac2c6de904b79e813611eefbc985f"),
            ),
            wikitext(
                Split::Validation,
                "wikitext-2-v1/validation-{}-of-00001.parquet",
                1,
                &[
                    "wikitext/wikitext-2-v1/validation-*.parquet",
                    "wikitext-2/wiki.valid.tokens",
                ],
                Some(217_646),
                Some("f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8"),
            ),
            wikitext(
                Split::Test,
                "wikitext-2-v1/test-{}-of-00001.parquet",
                1,
                &[
                    "wikitext/wikitext-2-v1/test-*.parquet",
                    "wikitext-2/wiki.test.tokens",
                ],
                Some(245_569),
                Some("d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0"),
            ),
        ],
    },
    Entry {
        name: "wikitext-103",
        title: "WikiText-103, raw: articles of Wikipedia",
        licence: WIKITEXT_LICENCE,
        form: Form::WikiText,
        origin: WIKITEXT,
        splits: &[
            wikitext(
                Split::Train,
                "wikitext-103-raw-v1/train-{}-of-00002.parquet",
                2,
                &[
                    "wikitext/wikitext-103-raw-v1/train-*.parquet",
                    "wikitext-103-raw/wiki.train.raw",
                ],
                None,
                None,
            ),
            wikitext(
                Split::Validation,
                "wikitext-103-raw-v1/validation-{}-of-00001.parquet",
                1,
                &[
                    "wikitext/wikitext-103-raw-v1/validation-*.parquet",
                    "wikitext-103-raw/wiki.valid.raw",
                ],
                None,
                None,
            ),
            wikitext(
                Split::Test,
                "wikitext-103-raw-v1/test-{}-of-00001.parquet",
                1,
                &[
                    "wikitext/wikitext-103-raw-v1/test-*.parquet",
                    "wikitext-103-raw/wiki.test.raw",
                ],
                None,
                None,
            ),
        ],
    },
    Entry {
        name: "wikitext-103-unk",
        title: "WikiText-103 with rare words as <unk>",
        licence: WIKITEXT_LICENCE,
        form: Form::WikiText,
        origin: WIKITEXT,
        splits: &[
            wikitext(
                Split::Train,
                "wikitext-103-v1/train-{}-of-00002.parquet",
                2,
                &[
                    "wikitext/wikitext-103-v1/train-*.parquet",
                    "wikitext-103/wiki.train.tokens",
                ],
                Some(103_227_021),
                None,
            ),
            wikitext(
                Split::Validation,
                "wikitext-103-v1/validation-{}-of-00001.parquet",
                1,
                &[
                    "wikitext/wikitext-103-v1/validation-*.parquet",
                    "wikitext-103/wiki.valid.tokens",
                ],
                Some(217_646),
                None,
            ),
            wikitext(
                Split::Test,
                "wikitext-103-v1/test-{}-of-00001.parquet",
                1,
                &[
                    "wikitext/wikitext-103-v1/test-*.parquet",
                    "wikitext-103/wiki.test.tokens",
                ],
                Some(245_569),
                None,
            ),
        ],
    },
    Entry {
        name: "ptb",
        title: "Penn Treebank as Mikolov prepared it: news, 10,000 words",
        licence: "LDC99T42: not free",
        form: Form::Running,
        origin: Origin::ByHand {
            reason: "the Penn Treebank (LDC99T42) is licensed by the Linguistic Data Consortium and not fetched",
            files: "ptb/ptb.train.txt, ptb/ptb.valid.txt and ptb/ptb.test.txt",
        },
        splits: &[
            by_hand(Split::Train, &["ptb/ptb.train.txt"], Some(929_589)),
            by_hand(Split::Validation, &["ptb/ptb.valid.txt"], Some(73_760)),
            by_hand(Split::Test, &["ptb/ptb.test.txt"], Some(82_430)),
        ],
    },
    Entry {
        name: "c4",
        title: "C4, English: cleaned pages of Common Crawl",
        licence: "ODC-BY",
        form: Form::Documents,
        origin: Origin::Hub {
            repository: "allenai/c4",
            revision: "1588ec454efa1a09f29cd18ddd04fe05fc8653a2",
            folder: "c4",
        },
        splits: &[
            shards(
                Split::Train,
                "en/c4-train.{}-of-01024.json.gz",
                5,
                1024,
                &["c4/en/c4-train.*.json.gz", "c4/c4-train.*.json.gz"],
            ),
            shards(
                Split::Validation,
                "en/c4-validation.{}-of-00008.json.gz",
                5,
                8,
                &[
                    "c4/en/c4-validation.*.json.gz",
                    "c4/c4-validation.*.json.gz",
                ],
            ),
        ],
    },
    Entry {
        name: "pile",
        title: "The Pile: 22 sources of English text",
        licence: "of each source its own",
        form: Form::Documents,
        origin: Origin::ByHand {
            reason: "the Pile is no longer distributed by its publishers (pile-uncopyrighted, a part of it, can be fetched)",
            files: "pile/train/00.jsonl.zst and further, pile/val.jsonl.zst and pile/test.jsonl.zst",
        },
        splits: &[
            by_hand(
                Split::Train,
                &["pile/train/*.jsonl.zst", "pile/*.jsonl.zst"],
                None,
            ),
            by_hand(Split::Validation, &["pile/val.jsonl.zst"], None),
            by_hand(Split::Test, &["pile/test.jsonl.zst"], None),
        ],
    },
    Entry {
        name: "pile-uncopyrighted",
        title: "The part of the Pile that is still distributed",
        licence: "of each source its own",
        form: Form::Documents,
        origin: Origin::Hub {
            repository: "monology/pile-uncopyrighted",
            revision: "main",
            folder: "pile-uncopyrighted",
        },
        splits: &[
            shards(
                Split::Train,
                "train/{}.jsonl.zst",
                2,
                30,
                &["pile-uncopyrighted/train/*.jsonl.zst"],
            ),
            shards(
                Split::Validation,
                "val.jsonl.zst",
                0,
                1,
                &["pile-uncopyrighted/val.jsonl.zst"],
            ),
            shards(
                Split::Test,
                "test.jsonl.zst",
                0,
                1,
                &["pile-uncopyrighted/test.jsonl.zst"],
            ),
        ],
    },
];

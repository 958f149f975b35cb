//! Plots of made-up results.

use bkbench::quant::BitWidth;
use bkbench::report::plot::stability::{Options, draw};
use bkbench::report::plot::{Drawing, Format, multidataset, quantization};
use bkbench::report::table::table;
use bkbench::results::{
    DatasetEntry, GuideResults, MultidatasetGuide, Outcome, ResultsFile, RunRecord, Warning,
};

use crate::made_up;

const ALL: Options = Options {
    seq_lengths: Vec::new(),
    annotate_divergence: true,
    show_confidence_intervals: true,
};

fn drawing(record: &RunRecord, options: &Options) -> Drawing {
    draw(&ResultsFile::Record(Box::new(record.clone())), options).unwrap()
}

fn guide_drawing(record: &RunRecord, options: &Options) -> Drawing {
    draw(&ResultsFile::Guide(GuideResults::new(record)), options).unwrap()
}

/// Keeps pictures to look at where `BKBENCH_PICTURES` names a folder.
fn keep(drawing: &Drawing, name: &str) {
    if let Some(dir) = std::env::var_os("BKBENCH_PICTURES") {
        drawing
            .save(&std::path::Path::new(&dir).join(name))
            .unwrap();
    }
}

#[test]
fn every_format_begins_with_its_magic_bytes() {
    let drawing = drawing(&made_up::record(100, false), &ALL);
    keep(&drawing, "plain.png");
    for (format, magic) in [
        (Format::Svg, &b"<svg"[..]),
        (Format::Png, b"\x89PNG\r\n"),
        (Format::Pdf, b"%PDF-"),
    ] {
        let bytes = drawing.encode(format).unwrap();
        assert!(
            bytes.starts_with(magic),
            "{format:?} begins with {:?}",
            &bytes[..8]
        );
        assert!(bytes.len() > 2000, "{format:?} has {} bytes", bytes.len());
    }
}

#[test]
fn the_3_gram_has_a_line_of_its_own_with_its_loss() {
    let without = drawing(&made_up::record(100, false), &ALL);
    assert!(!without.svg.contains("3-gram"));
    let record = made_up::changed(&made_up::record(100, false), |cell| {
        cell.metrics.as_mut().unwrap().three_gram_ce_nats = Some(made_up::finite(2.125));
        true
    });
    let with = drawing(&record, &ALL);
    keep(&with, "three_gram.png");
    assert!(with.svg.contains("3-gram (2.12)"));
    let table = table(&record);
    assert!(
        table.contains("; of an interpolated 3-gram, with two tokens of context: 2.125."),
        "{table}"
    );
}

#[test]
fn divergence_is_marked_where_the_data_has_it_and_nowhere_else() {
    let broken = drawing(&made_up::record(100, true), &ALL);
    keep(&broken, "broken.png");
    assert!(broken.svg.contains("1 diverged (first at step 59)"));
    assert!(
        !drawing(&made_up::record(100, false), &ALL)
            .svg
            .contains("diverged")
    );

    // Without the annotation no mark and no legend entry; the note of what became of the seeds stays.
    let unmarked = drawing(
        &made_up::record(100, true),
        &Options {
            annotate_divergence: false,
            ..ALL
        },
    );
    assert_eq!(unmarked.svg.matches("diverged").count(), 1);
    assert_eq!(broken.svg.matches("diverged").count(), 2);

    let guide = guide_drawing(&made_up::record(100, true), &ALL);
    keep(&guide, "guide.png");
    assert!(
        guide
            .svg
            .contains("mamba diverged at N = 8,192 (5 steps not finite)")
    );
    assert!(
        !guide_drawing(&made_up::record(100, false), &ALL)
            .svg
            .contains("diverged")
    );
}

#[test]
fn intervals_are_drawn_only_where_there_are_some() {
    let text = "95 % t interval";
    assert!(
        drawing(&made_up::record(100, false), &ALL)
            .svg
            .contains(text)
    );
    let hidden = Options {
        show_confidence_intervals: false,
        ..ALL
    };
    assert!(
        !drawing(&made_up::record(100, false), &hidden)
            .svg
            .contains(text)
    );

    let mut one_seed = made_up::record(100, false);
    let cells = std::mem::take(&mut one_seed.cells);
    cells
        .into_iter()
        .filter(|cell| cell.seed == 42)
        .for_each(|cell| one_seed.push(cell));
    let picture = drawing(&one_seed, &ALL);
    keep(&picture, "one_seed.png");
    assert!(!picture.svg.contains(text));
    assert!(picture.svg.contains("mamba (n = 1)"));
}

#[test]
fn the_axis_says_over_how_many_steps_a_curve_is_averaged() {
    assert!(
        drawing(&made_up::record(400, false), &ALL)
            .svg
            .contains("mean of 20 steps")
    );
    assert!(
        !drawing(&made_up::record(30, false), &ALL)
            .svg
            .contains("mean of")
    );
}

#[test]
fn a_large_unmatched_ratio_stands_in_the_title() {
    let mut record = made_up::record(20, false);
    assert!(!drawing(&record, &ALL).svg.contains("not equal"));
    for cell in record.cells.iter_mut().filter(|cell| cell.model == "mamba") {
        cell.parameters.active *= 3;
    }
    assert!(
        drawing(&record, &ALL)
            .svg
            .contains("not equal: active parameters, 3.0x")
    );
}

#[test]
fn seeds_without_measurements_are_named() {
    let mut record = made_up::record(100, false);
    for cell in record
        .cells
        .iter_mut()
        .filter(|cell| cell.model == "mamba" && cell.seq_len == 8192)
    {
        cell.outcome = Outcome::OutOfMemory {
            requested_bytes: None,
        };
        cell.metrics = None;
    }
    let cells = std::mem::take(&mut record.cells);
    for cell in cells {
        record.push(cell);
    }
    let picture = drawing(&record, &ALL);
    keep(&picture, "memory.png");
    assert!(picture.svg.contains("mamba: of 3 seeds 3 out of memory"));
    assert!(picture.svg.contains("mamba (n = 0 to 3)"));
}

#[test]
fn lengths_without_results_are_noted_and_none_at_all_is_refused() {
    let record = made_up::record(20, false);
    let options = Options {
        seq_lengths: vec![2048, 1_048_576],
        ..ALL
    };
    let picture = drawing(&record, &options);
    assert_eq!(picture.notes, ["no results at length 1,048,576"]);
    assert!(picture.svg.contains("N = 2,048") && !picture.svg.contains("N = 512"));

    let error = draw(
        &ResultsFile::Record(Box::new(record)),
        &Options {
            seq_lengths: vec![7],
            ..ALL
        },
    )
    .unwrap_err();
    assert_eq!(error.exit_code(), 2);
}

#[test]
fn a_single_width_shows_its_interval_as_a_bar() {
    let record = ResultsFile::Record(Box::new(crate::report::quantization()));
    let svg = |bit_widths| {
        let options = quantization::Options {
            bit_widths,
            annotate_threshold: None,
            show_confidence_intervals: true,
        };
        quantization::draw(&record, &options).unwrap().svg
    };
    let single = svg(vec![BitWidth::Int8]);
    assert!(single.contains("bars: 95 % t interval"), "{single}");
    assert!(!svg(Vec::new()).contains("bars"));
}

#[test]
fn what_forbids_a_claim_stands_below_every_plot() {
    let mut record = crate::report::quantization();
    let note = Warning::DeviceNote {
        note: "a note".into(),
    };
    record.warnings = vec![note.clone(), note];
    record.warnings.push(Warning::FewSeeds { count: 2 });
    let options = quantization::Options {
        bit_widths: Vec::new(),
        annotate_threshold: None,
        show_confidence_intervals: true,
    };
    let record = ResultsFile::Record(Box::new(record));
    let svg = quantization::draw(&record, &options).unwrap().svg;
    assert!(svg.contains("spread"), "{svg}");
    assert!(!svg.contains("a note"));
}

#[test]
fn seeds_that_differ_by_dataset_are_given_as_a_range() {
    let entry = |n_seeds| DatasetEntry {
        ppl: Some(4.0),
        carry_ppl: None,
        word_ppl: None,
        bits_per_byte: None,
        unigram_ppl: None,
        trained_on: "c4".into(),
        n_seeds,
        ci95: None,
    };
    let on = |name: &str, n_seeds| (name.to_owned(), vec![("mamba".to_owned(), entry(n_seeds))]);
    let guide = MultidatasetGuide {
        datasets: vec![on("c4", 5), on("ptb", 3)],
    };
    let options = multidataset::Options {
        show_confidence_intervals: true,
    };
    let drawing = multidataset::draw(&ResultsFile::Multidataset(guide), options).unwrap();
    assert!(drawing.svg.contains("mamba (n = 3 to 5)"));
}

#[test]
fn five_lengths_fit_on_two_rows() {
    let mut record = made_up::record(200, true);
    let mut longer = record.cells.clone();
    for cell in &mut longer {
        cell.seq_len *= 64;
    }
    longer.retain(|cell| cell.seq_len != 512 * 64);
    for cell in longer {
        record.push(cell);
    }
    keep(&drawing(&record, &ALL), "five.png");
}

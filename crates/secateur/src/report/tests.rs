//! Reports are rendered whole, and what comes from a file is escaped.

use super::*;

fn report() -> CompressReport {
    let round = |round: usize, params: u64, val_top1: f64, accepted: bool| Round {
        round,
        kind: (round > 0).then_some(CutKind::Directions),
        step: 0.15,
        size: Size {
            params,
            macs: 150 * params,
            nanos: 0,
        },
        val_top1_cut: val_top1 - 0.01,
        val_top1,
        drop: AccuracyDrop {
            points: 100.0 * (0.92 - val_top1),
            standard_error: 0.4,
        },
        output_error: None,
        recovered: false,
        accepted,
    };
    let layer = |name: &str, kind: LayerKind, why: &str| LayerResult {
        name: name.to_owned(),
        kind,
        rank: 4,
        full_rank: 16,
        input_rank: None,
        params_before: 2304,
        params_after: 640,
        why: why.to_owned(),
    };
    CompressReport {
        head: None,
        goal_met: true,
        before: Measure {
            params: 269_722,
            macs: 40_813_184,
            bytes: 1_091_000,
            top1: Some(0.9173),
        },
        after: Measure {
            params: 134_861,
            macs: 20_406_592,
            bytes: 561_000,
            top1: Some(0.9090),
        },
        n_test: 10_000,
        acc_drop_pp: Some(0.83),
        standard_error_pp: Some(0.29),
        output_error: None,
        targets: vec![TargetResult {
            name: "acc-drop".to_owned(),
            want: 1.0,
            got: 0.83,
            met: true,
        }],
        layers: vec![
            layer("conv1", LayerKind::Factored, ""),
            layer(
                "a|b<script>alert(1)</script>",
                LayerKind::Excluded,
                "depthwise: its rank is 1",
            ),
        ],
        val_top1_before: Some(0.921),
        n_val: 1000,
        ways: Vec::new(),
        rounds: vec![
            round(0, 269_722, 0.921, true),
            round(1, 200_000, 0.918, true),
            round(2, 100_000, 0.89, false),
        ],
        verify: VerifyResult {
            max_abs_diff: 3.1e-6,
            relative: 3.1e-7,
            top1_agreement: 1.0,
            runtime: "tract".to_owned(),
            n: 500,
        },
        latency: BenchReport {
            runtime: "tract".to_owned(),
            threads: 2,
            input: [1, 3, 32, 32],
            runs: 100,
            models: [("before", 2.0, 1.0), ("after", 1.0, 2.0)]
                .map(|(model, p50_ms, speedup)| FileLatency {
                    model: model.to_owned(),
                    p50_ms,
                    p95_ms: 1.5 * p50_ms,
                    speedup,
                })
                .to_vec(),
        },
        seconds: BTreeMap::from([("transfer".to_owned(), 12.5), ("prune".to_owned(), 100.0)]),
        engine: "burn".to_owned(),
        model: "small.onnx".to_owned(),
    }
}

#[test]
fn the_summary_states_count_unit_baseline_and_n() {
    let text = report().summary_table().to_markdown();
    let expected = "\
|  | before | after | change |
| --- | ---: | ---: | ---: |
| parameters | 0.270 M | 0.135 M | -50.0 % |
| MACs | 40.8 M | 20.4 M | -50.0 % |
| file size | 1.09 MB | 0.561 MB | -48.6 % |
| latency, p50 | 2.00 ms | 1.00 ms | 2.00x as fast |
| test top-1 (n = 10,000) | 91.73 % | 90.90 % | -0.83 pp |
";
    assert_eq!(text, expected);
}

#[test]
fn macs_are_explained_exactly_once() {
    let report = report();
    assert_eq!(report.to_markdown().matches("2 FLOPs").count(), 1);
    assert_eq!(report.to_html().unwrap().matches("2 FLOPs").count(), 1);
}

#[test]
fn text_from_the_file_has_no_effect_in_html_and_markdown() {
    let mut report = report();
    report.model = "<img src=x onerror=alert(1)>\n# not a heading".to_owned();
    let html = report.to_html().unwrap();
    assert!(
        !html.contains("<script") && !html.contains("<img"),
        "{html}"
    );
    assert!(html.contains("&lt;script&gt;alert(1)"));
    let markdown = report.to_markdown();
    assert!(!markdown.contains("<script") && !markdown.contains("<img"));
    assert!(!markdown.contains("\n# not a heading"));
    let row = markdown
        .lines()
        .find(|line| line.contains("script"))
        .unwrap();
    assert!(row.contains(r"a\|b"), "{row}");
    let unescaped = row.replace(r"\|", "");
    assert_eq!(
        unescaped.matches('|').count(),
        report.layer_table().columns.len() + 1
    );
}

#[test]
fn the_page_refers_to_nothing_outside_itself() {
    let html = report().to_html().unwrap();
    for reference in ["src=", "href=", "url(", "@import"] {
        assert!(!html.contains(reference), "{reference}");
    }
}

#[test]
fn the_chart_shows_every_round_and_needs_two() {
    let mut report = report();
    let svg = report.chart().unwrap().unwrap();
    assert_eq!(svg.matches("<circle").count(), report.rounds.len());
    assert!(svg.contains("validation top-1, %") && svg.contains("parameters, M"));
    report.rounds.truncate(1);
    assert_eq!(report.chart().unwrap(), None);
}

#[test]
fn ways_have_a_table_where_there_were_several() {
    let mut report = report();
    assert!(!report.to_markdown().contains("## Ways"));
    let way = |removes: &str, end: usize, taken| Way {
        removes: removes.to_owned(),
        end: report.rounds[end].clone(),
        taken,
    };
    report.ways = vec![way("double", 0, false), way("channels", 1, true)];
    let text = report.to_markdown();
    let row = text.lines().find(|line| line.starts_with("| channels |"));
    assert!(row.is_some_and(|row| row.contains("taken")), "{text}");
    assert!(text.contains("Ways"));
}

#[test]
fn a_missed_target_is_named_with_both_numbers() {
    let mut report = report();
    assert_eq!(report.missed(), None);
    report.targets.push(TargetResult {
        name: "size".to_owned(),
        want: 2e5,
        got: 5.61e5,
        met: false,
    });
    assert_eq!(
        report.missed().unwrap(),
        "`size` is 0.561 MB, wanted at most 0.200 MB"
    );
    assert!(report.to_markdown().contains("Not all targets are met."));
}

#[test]
fn the_object_has_the_names_that_scripts_rely_on() {
    let object = serde_json::to_value(report()).unwrap();
    for name in [
        "goal_met",
        "before",
        "after",
        "n_test",
        "acc_drop_pp",
        "targets",
        "layers",
        "verify",
        "latency",
        "seconds",
        "model",
    ] {
        assert!(object.get(name).is_some(), "{name}");
    }
    for (part, names) in [
        ("/after", &["params", "macs", "bytes", "top1"][..]),
        ("/targets/0", &["name", "want", "got", "met"][..]),
        (
            "/layers/0",
            &[
                "name",
                "kind",
                "rank",
                "full_rank",
                "params_before",
                "params_after",
                "why",
            ][..],
        ),
        (
            "/verify",
            &["max_abs_diff", "top1_agreement", "runtime"][..],
        ),
    ] {
        for name in names {
            assert!(
                object.pointer(part).unwrap().get(name).is_some(),
                "{part}/{name}"
            );
        }
    }
    assert_eq!(object.pointer("/layers/0/kind").unwrap(), "factored");
}

#[test]
fn a_network_that_became_slower_is_said_to_be() {
    let mut report = report();
    let slower = |report: &CompressReport| {
        let remarks = report.remarks();
        remarks
            .iter()
            .any(|remark| remark.contains("is slower here"))
    };
    assert!(!slower(&report));
    report.latency.models[1].speedup = 0.8;
    assert!(slower(&report));
}

#[test]
fn without_labels_the_error_of_the_outputs_stands_where_accuracy_does() {
    let mut report = report();
    (report.before.top1, report.after.top1) = (None, None);
    (
        report.acc_drop_pp,
        report.standard_error_pp,
        report.val_top1_before,
    ) = (None, None, None);
    report.output_error = Some(0.043);
    for round in &mut report.rounds {
        round.output_error = Some(0.01 * round.round as f64);
        round.size.nanos = 2_000_000;
    }
    let page = report.to_markdown();
    assert!(
        page.contains("error of the outputs (n = 10,000) | - | 4.30 %"),
        "{page}"
    );
    assert!(!page.contains("top-1"), "{page}");
    assert!(page.contains("2.00 ms"), "{page}");
    assert_eq!(report.chart().unwrap(), None);
    assert!(report.to_html().is_ok());
}

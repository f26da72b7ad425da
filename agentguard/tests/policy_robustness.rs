//! Whatever a manifest file holds, it is answered: no panic, no blow-up, and
//! each finding points into the file.

use std::path::Path;
use std::time::{Duration, Instant};

use agentguard::policy::{Diagnostic, check, parse};
use proptest::prelude::*;

const GOOD: &str = include_str!("../../policies/invoice-summarizer.yaml");

/// Far more than any file takes, so that only growth beyond all measure is told.
const PATIENCE: Duration = Duration::from_secs(30);

fn findings(bytes: &[u8]) -> Vec<Diagnostic> {
    match parse(Path::new("x.yaml"), bytes) {
        Ok(parsed) => check(&parsed).diagnostics,
        Err(diagnostic) => vec![*diagnostic],
    }
}

fn assert_answered(bytes: &[u8]) {
    let started = Instant::now();
    let findings = findings(bytes);
    let lines = bytes.iter().filter(|&&b| b == b'\n' || b == b'\r').count() + 1;
    for finding in &findings {
        assert!(!finding.to_string().contains('\u{1b}'));
        assert!(
            finding.to_string().len() < 4_000,
            "{}",
            finding.message.len()
        );
        if let Some(line) = finding.line {
            assert!(line as usize <= lines + 1, "line {line} of {lines}");
        }
    }
    assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
}

/// Pieces that mean something to YAML, to patterns or to terminals.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let pieces: [&[u8]; 24] = [
        b"*",
        b"&a ",
        b"*a",
        b"!x ",
        b"- ",
        b": ",
        b"? ",
        b"[",
        b"]",
        b"{",
        b"}",
        b"\"",
        b"'",
        b"|\n",
        b"\n---\n",
        b"\t",
        b"\r",
        b"#",
        b"<<: ",
        b"\x1b[31m",
        b"\xff",
        b"\0",
        b"~",
        "\u{202e}".as_bytes(),
    ];
    prop::sample::select(pieces.to_vec()).prop_map(<[u8]>::to_vec)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_spoilt_manifest_is_answered(
        edits in prop::collection::vec((0..GOOD.len(), 0..12usize, piece()), 1..6),
    ) {
        let mut bytes = GOOD.as_bytes().to_vec();
        for (at, removed, piece) in edits {
            let at = at.min(bytes.len());
            let end = (at + removed).min(bytes.len());
            bytes.splice(at..end, piece);
        }
        assert_answered(&bytes);
    }

    #[test]
    fn rubbish_is_answered(pieces in prop::collection::vec(piece(), 0..60)) {
        assert_answered(&pieces.concat());
    }
}

/// A mebibyte of one thing each: what a parser or a checker is slow with.
#[test]
fn hostile_files_are_answered() {
    let fill = |unit: &str| unit.repeat((1 << 20) / unit.len() - 1_000);
    let spec = "apiVersion: agentguard/v1\nkind: Agent\nmetadata: { name: x }\nspec:\n";
    for text in [
        fill("["),
        fill("{a: "),
        fill("- "),
        fill("? "),
        fill("a: "),
        fill("a"),
        fill("&a "),
        fill("*a "),
        fill("#\n"),
        fill("\n"),
        fill("---\n"),
        fill("\"\\x41"),
        format!("a: {}", fill("9")),
        format!("{}: 1", fill("k")),
        format!("{spec}  owner: [{}]", fill("x,")),
        format!("{spec}{}", fill("  owner: x\n")),
        format!("{spec}  delegates: [{}]", fill("a,")),
        format!("{spec}  lease: {}", fill("1")),
        format!(
            "{spec}  permissions: {{ read: {{ deny: [{}] }} }}",
            fill("/*,")
        ),
        format!(
            "{spec}  permissions: {{ read: {{ deny: [\"/{}\"] }} }}",
            fill("*a")
        ),
        format!(
            "{spec}  permissions: {{ read: {{ deny: [\"{}\"] }} }}",
            fill("/**")
        ),
        format!(
            "{spec}  permissions: {{ connect: {{ deny: [\"{}\"] }} }}",
            fill("a.")
        ),
        format!("{spec}  enrol: {{ match: [{}] }}", fill("{exe: /a},")),
    ] {
        assert_answered(text.as_bytes());
    }
}

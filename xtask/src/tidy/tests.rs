//! The parsing behind the checks, and one small tree for each way in which specification and tests may disagree.

use super::{Findings, arrows, citations, examples, sources, spec};
use crate::tree::{File, Tree};

fn tree(files: &[(&str, &str)]) -> Tree {
    let file = |(path, text): &(&str, &str)| File { path: (*path).to_owned(), text: (*text).to_owned() };
    Tree { files: files.iter().map(file).collect() }
}

const COVERAGE: &str = "\
o/read/fifo simulator deviation
o/read/fifo process lacks:descriptor
W5 any test
H1 process later why
";
const EXCUSE: &str = "o/read/fifo simulator W5 newest first\n";
const TEST: &str = "// spec: o/read/fifo, W5\n#[test]\nfn newest() {}\n";

/// The findings about a specification of three rules, with these two lists and this test of the engine.
fn findings(coverage: &str, deviations: &str, test: &str) -> String {
    let tree = tree(&[
        ("spec/original.md", "- `o/read/fifo` Oldest first.\n- **W5 Early.** Avoid.\n"),
        ("spec/host.md", "| H1 | last call | zeros | hammer |\n"),
        ("spec/coverage.txt", coverage),
        ("spec/deviations.txt", deviations),
        ("crates/engine/src/read.rs", test),
    ]);
    let mut findings = Findings::default();
    spec::check(&tree, &mut findings);
    findings.0.join("\n")
}

#[test]
fn a_specification_that_agrees_with_its_tests_has_no_findings() {
    assert_eq!(findings(COVERAGE, EXCUSE, TEST), "");
}

#[test]
#[rustfmt::skip]
fn each_disagreement_is_found() {
    let lists = [
        ("o/read/fifo process lacks:descriptor\n", "", "no line for `o/read/fifo` at process"),
        ("lacks:descriptor", "test", "no test of `o/read/fifo` at process"),
        ("lacks:descriptor", "lacks:patience", "cannot be `lacks:patience `"),
        ("lacks:descriptor", "later busy", "cannot be `later busy`"),
        ("later why", "later", "cannot be `later `"),
        ("H1 process", "H1 kernel", "`H1 kernel` names no rule"),
        ("W5 any test\n", "W5 any test\nW5 any test\n", "`W5 any` is out of order or a duplicate"),
        ("simulator deviation", "simulator lacks:device", "where spec/coverage.txt says `lacks:device`"),
        ("process lacks:descriptor", "process deviation", "deviates at process unexcused"),
    ];
    for (from, to, expected) in lists {
        let found = findings(&COVERAGE.replace(from, to), EXCUSE, TEST);
        assert!(found.contains(expected), "{expected:?} not in {found}");
    }
    let others = [
        ("o/read/fifo simulator W50 newest\n", TEST, "not `rule places why text`"),
        ("o/read/fifo simulator,process W5 newest\n", TEST, "excuses `o/read/fifo` at process without need"),
        ("", TEST, "deviates at simulator unexcused"),
        (EXCUSE, "// spec: W5\n#[test]\nfn a() {}\n", "no test of what we do instead of `o/read/fifo`"),
        (EXCUSE, "// spec: m/no\n", "no rule `m/no`"),
    ];
    for (deviations, test, expected) in others {
        let found = findings(COVERAGE, deviations, test);
        assert!(found.contains(expected), "{expected:?} not in {found}");
    }
}

#[test]
fn an_id_is_defined_by_an_item_or_a_row_and_not_by_a_mention() {
    let cases = [
        ("- `o/read/fifo` Oldest first.", Some("o/read/fifo")),
        ("| `o/fault/nowait` | may retry | RETRY |", Some("o/fault/nowait")),
        ("- **W12 Sentinel.** Length 0.", Some("W12")),
        ("| H33 | SIGBUS | why | test |", Some("H33")),
        ("as `o/read/fifo` says", None),
        ("| High | x |", None),
        ("- `pread` is refused", None),
    ];
    for (line, id) in cases {
        assert_eq!(spec::defined(line), id, "{line}");
    }
}

#[test]
fn a_citation_counts_above_or_inside_a_test_and_its_place_is_where_it_stands() {
    let engine = "// spec: o/a\nfn helper() {}\n// spec: m/b, W1\n/// Sentence.\n#[test]\n\
                  fn t() {\n    // spec: m/c\n}\n// spec: m/d\nfn other() {}\n";
    let tree = tree(&[
        ("crates/engine/src/read.rs", engine),
        ("testing/conformance/src/fill.rs", "// spec: o/a, m/b\n// spec(process, kernel): m/c\n"),
        ("crates/process/src/lib.rs", "// spec(kernel): m/c\n"),
    ]);
    let mut findings = Findings::default();
    let found = citations::of(&tree, &mut findings);
    let found: Vec<_> = found.iter().map(|c| format!("{} {} {}", c.rule, c.is_test, c.places.join(" "))).collect();
    let expected = "\
        o/a false simulator|m/b true simulator|W1 true simulator|m/c true simulator|m/d false simulator|\
        o/a true simulator process|m/b true simulator process kernel|m/c true process kernel|m/c false kernel";
    assert_eq!(found.join("|"), expected);
    assert_eq!(findings.0.len(), 1, "crates/process may not state its place");
}

#[test]
fn dependencies_are_found_in_every_form_but_not_those_of_tests() {
    let manifest = "[package]\nname = \"userfault-engine\"\n[dependencies]\nuserfault-abi.workspace = true\n\
        libc = \"0.2\"\nother = { package = \"real\", version = \"1\" }\n[dependencies.table]\nversion = \"1\"\n\
        [target.'cfg(unix)'.dependencies]\nrustix = \"1\"\n[dev-dependencies]\nloom = \"0.7\"\n\
        [target.'cfg(loom)'.dev-dependencies.proptest]\nversion = \"1\"\n[build-dependencies]\ncc = \"1\"\n";
    let tree = tree(&[("crates/engine/Cargo.toml", manifest)]);
    let names: Vec<_> = arrows::dependencies(&tree.files[0]).into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, ["userfault-abi", "libc", "real", "table", "rustix", "cc"]);
    let mut findings = Findings::default();
    arrows::check(&tree, &mut findings);
    assert_eq!(findings.0.len(), 5, "all but userfault-abi");
}

#[test]
fn a_file_is_judged_by_header_size_words_unsafe_and_the_paths_it_names() {
    let long = format!("//! Long.\n{}", "\n".repeat(500));
    let listed = "//! Raw.\n//! 1. It lives.\n#![expect(unsafe_code, reason = \"raw\")]\nfn f() { unsafe { g() } }\n";
    let cases = [
        ("a/lib.rs", "//! Fine, and unsafe code is only named: \"unsafe\".\n#![forbid(unsafe_code)]\n", 0),
        ("a/lib.rs", "fn f() {}\n", 1),
        ("a/lib.rs", &long, 1),
        ("a/tests.rs", &long, 0),
        ("a/lib.rs", concat!("//! Words.\n// TO", "DO later\n"), 1),
        ("a/lib.rs", "//! Raw.\nunsafe impl Sync for X {}\n#[unsafe(no_mangle)]\nunsafe fn f() {}\n", 1),
        ("a/lib.rs", listed, 0),
        ("a/lib.rs", &listed.replace("1. ", ""), 1),
        ("a/lib.rs", &listed.replace("#![expect", "#![allow"), 2),
        ("README.md", "See `crates/a/src/gone.rs` and `crates/*/src/lib.rs`.\n", 1),
    ];
    for (path, text, expected) in cases {
        let mut findings = Findings::default();
        sources::check(&tree(&[(path, text)]), &mut findings);
        assert_eq!(findings.0.len(), expected, "{path} {text:?}: {:?}", findings.0);
    }
}

#[test]
fn a_public_item_has_an_example_or_points_to_an_item_that_has_one() {
    let shown = "/// Shown.\n///\n/// ```\n/// a();\n/// ```\n#[derive(Debug)]\npub struct Shown;\n";
    let cases = [
        ("/// Bare.\npub enum Bare {}\n", 1, "nothing"),
        (
            "/// Example: [`Shown`].\n#[expect(\n    dead_code,\n)]\npub unsafe trait Bare {}\n",
            0,
            "an item with an example",
        ),
        ("/// Example: [the crate](`crate`), [`crate`].\npub const fn bare() {}\n", 0, "the crate"),
        ("/// Example: [`other::Shown`](crate).\npub type Bare = u8;\n", 0, "the last segment counts"),
        ("/// Example: [`Missing`].\npub struct Bare;\n", 1, "an item that does not exist"),
        ("/// Example: see there.\npub struct Bare;\n", 1, "no link"),
        ("/// Example: [`Bare`].\npub struct Bare;\n", 1, "itself"),
        ("/// ```text\n/// a -> b\n/// ```\npub struct Bare;\n", 1, "a drawing"),
        ("/// ```compile_fail\n/// a();\n/// ```\npub struct Bare;\n", 1, "what does not work"),
        ("/// Example: [`Shown`].\nuse a;\npub struct Bare;\n", 1, "the documentation of something else"),
        ("    /// In a macro's use.\n    pub struct Bare(u8) {\n", 1, "a type wherever it stands"),
        ("    /// A method.\n    pub fn bare(&self) {}\n", 0, "a method"),
        (
            "    /// ```\n    /// ```\n    pub fn a() {}\n/// Example: [`T::a`].\npub struct Bare;\n",
            0,
            "a method that shows it",
        ),
        ("        pub struct $name;\npub(crate) struct Own;\npub use a::B;\n", 0, "what is not public here"),
    ];
    let header = "//! Crate.\n//!\n//! ```\n//! a();\n//! ```\n\n";
    for (item, expected, why) in cases {
        let text = format!("{header}{shown}{item}");
        let mut findings = Findings::default();
        examples::check(&tree(&[("crates/a/src/lib.rs", &text)]), &mut findings);
        assert_eq!(findings.0.len(), expected, "{why}: {:?}", findings.0);
    }
    let module = "//! ```\n//! ```\n\n/// Example: [`shown`](crate::shown).\npub struct Bare;\n";
    let hidden = format!("{header}#[doc(hidden)]\npub mod hidden;\n");
    let files = [("crates/a/src/lib.rs", &*hidden), ("crates/a/src/hidden.rs", "//! H.\npub struct Hidden;\n")];
    for files in [&files[..], &[("crates/a/src/shown/mod.rs", module)]] {
        let mut findings = Findings::default();
        examples::check(&tree(files), &mut findings);
        assert!(findings.0.is_empty(), "{:?}", findings.0);
    }
    for (path, expected) in [("crates/a/src/lib.rs", 2), ("crates/a/src/b.rs", 1), ("crates/cli/src/lib.rs", 0)] {
        let mut findings = Findings::default();
        examples::check(&tree(&[(path, "//! Bare.\npub struct Bare;\n")]), &mut findings);
        assert_eq!(findings.0.len(), expected, "{path}: {:?}", findings.0);
    }
}

use super::*;
use proptest::prelude::*;

fn pattern(text: &str) -> PathPattern {
    PathPattern::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn matches(text: &str, path: &str) -> bool {
    let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
    pattern(text).matches(&names)
}

#[test]
fn what_patterns_cover() {
    for (text, covered, not_covered) in [
        ("/", &["/"][..], &["/a"][..]),
        ("/a", &["/a"], &["/", "/a/b", "/A", "/ab"]),
        ("/a/**", &["/a/b", "/a/b/c"], &["/a", "/", "/b", "/ab/c"]),
        (
            "/a/**/b",
            &["/a/b", "/a/x/b", "/a/x/y/b", "/a/b/b"],
            &["/a", "/a/b/c", "/b"],
        ),
        ("**/b", &["/b", "/a/b", "/a/c/b"], &["/", "/b/a", "/bb"]),
        ("/**/b", &["/b", "/a/b"], &["/b/a"]),
        ("/**", &["/a", "/a/b"], &["/"]),
        ("/a/*/c", &["/a/b/c", "/a/.b/c"], &["/a/c", "/a/b/b/c"]),
        (
            "/a/*.pem",
            &["/a/x.pem", "/a/.pem"],
            &["/a/x.pe", "/a/x.pem/y", "/x.pem"],
        ),
        (
            "/a/?",
            &["/a/b", "/a/ä", "/a/🔑"],
            &["/a", "/a/bb", "/a/b/c"],
        ),
        (
            "**/.git/**/config",
            &["/r/.git/config", "/.git/a/b/config"],
            &["/r/git/config"],
        ),
        ("/a/**/**", &["/a/b", "/a/b/c"], &["/a"]),
        (r"/a/\*", &["/a/*"], &["/a/b"]),
        (r"/a/\[id\].tsx", &["/a/[id].tsx"], &["/a/i.tsx"]),
    ] {
        for path in covered {
            assert!(matches(text, path), "{text} does not cover {path}");
        }
        for path in not_covered {
            assert!(!matches(text, path), "{text} covers {path}");
        }
    }
}

#[test]
fn a_question_mark_is_one_well_formed_character() {
    let one = GlobPattern::parse("?").unwrap();
    for bad in [
        &b"\xff"[..],
        b"\xc3",
        b"\xed\xa0\x80",
        b"\xf5\x80\x80\x80",
        b"\xc0\x80",
        b"",
    ] {
        assert!(!one.matches(bad), "{bad:?}");
    }
    assert!(GlobPattern::parse("a*").unwrap().matches(b"a\xff\xfe"));
    assert!(GlobPattern::parse(r"a\xff?").unwrap().matches(b"a\xffb"));
}

#[test]
fn what_is_refused_and_how() {
    for (text, message, help) in [
        ("", "empty", "absolute"),
        ("a/b", "not an absolute path", "`**/a/b`"),
        ("./a", "not an absolute path", "`**/a`"),
        ("**", "not an absolute path", "`/**`"),
        ("~/.ssh/id_rsa", "`~` is not expanded", "/home/alice"),
        ("/a//b", "empty name", "`/a/b`"),
        ("**//b", "empty name", "`**/b`"),
        ("/a/", "ends with a slash", "`/a/**`"),
        ("//", "ends with a slash", "`/`"),
        (
            "/a/./b",
            "cannot hold the name `.`",
            "as the kernel resolves it",
        ),
        (
            "/a/../b",
            "cannot hold the name `..`",
            "as the kernel resolves it",
        ),
        (
            r"/a/\x2e\x2e/b",
            "cannot hold the name",
            "as the kernel resolves it",
        ),
        (
            "/srv/**.pem",
            "`**` must stand between slashes",
            "`/srv/**/*.pem`",
        ),
        (
            "/srv/a**",
            "`**` must stand between slashes",
            "`/srv/a*/**`",
        ),
        (
            "/srv/a**b",
            "`**` must stand between slashes",
            "`/srv/a*/**/*b`",
        ),
        ("/srv/***", "`**` must stand between slashes", "`/srv/**`"),
        ("/a/[ab]", "character classes", r"`\[`"),
        ("/a/{b,c}", "alternatives", r"`\{`"),
        (r"/a\n", "not an escape", "after a backslash"),
        (r"/a\", "ends with a backslash", "after a backslash"),
        (r"/a\xg0", "two hexadecimal digits", "after a backslash"),
        (r"/a\x+1", "two hexadecimal digits", "after a backslash"),
        (r"/a\x00", "cannot hold the byte 00", ""),
        (r"/a\x2fb", "cannot hold the byte 2f", ""),
        ("/a\0b", "NUL", ""),
    ] {
        let error = PathPattern::parse(text).expect_err(text);
        assert!(error.message.contains(message), "{text:?}: {error}");
        let advice = error.help.unwrap_or_default();
        assert!(advice.contains(help), "{text:?}: help: {advice}");
    }
}

#[test]
fn sizes_are_bounded() {
    let fits = "n".repeat(MAX_NAME_BYTES);
    assert!(PathPattern::parse(&format!("/{fits}")).is_ok());
    assert!(PathPattern::parse(&format!("/{fits}*")).is_ok());
    assert!(PathPattern::parse(&format!("/{fits}?")).is_err());
    assert!(PathPattern::parse(&format!("/{fits}n")).is_err());
    assert!(PathPattern::parse(&"/n".repeat(MAX_COMPONENTS)).is_ok());
    assert!(PathPattern::parse(&"/n".repeat(MAX_COMPONENTS + 1)).is_err());
    // 16 names of 255 bytes and their slashes are 4,096 bytes.
    assert!(PathPattern::parse(&format!("/{fits}").repeat(16)).is_ok());
    assert!(PathPattern::parse(&format!("/{fits}").repeat(17)).is_err());
}

#[test]
fn the_literal_prefix_ends_at_the_first_wildcard() {
    let parsed = pattern("/srv/in/*/x");
    let prefix: [&[u8]; 2] = [b"srv", b"in"];
    assert_eq!(parsed.literal_prefix(), prefix);
    assert!(pattern("**/x").literal_prefix().is_empty());
    assert_eq!(pattern("/a/b").literal_prefix().len(), 2);
}

#[test]
fn objects_are_resolved_paths() {
    let object = PathObject::from_bytes(b"/srv/a b/*").unwrap();
    assert_eq!(object.components().len(), 3);
    assert_eq!(object.to_string(), "/srv/a b/*");
    assert_eq!(PathObject::from_bytes(b"/").unwrap().to_string(), "/");
    for bad in [
        &b"a"[..],
        b"/a/",
        b"/a//b",
        b"/a/./b",
        b"/..",
        b"/a\0b",
        b"",
    ] {
        assert!(PathObject::from_bytes(bad).is_err(), "{bad:?}");
    }
}

/// The textbook recursion, written without regard to the matcher above.
fn naive_glob(tokens: &[GlobToken], name: &[u8]) -> bool {
    match tokens.split_first() {
        None => name.is_empty(),
        Some((GlobToken::Literal(bytes), rest)) => {
            name.starts_with(bytes) && naive_glob(rest, &name[bytes.len()..])
        }
        Some((GlobToken::AnyRun, rest)) => {
            (0..=name.len()).any(|taken| naive_glob(rest, &name[taken..]))
        }
        Some((GlobToken::AnyChar, rest)) => match name.utf8_chunks().next() {
            Some(chunk) => chunk
                .valid()
                .chars()
                .next()
                .is_some_and(|c| naive_glob(rest, &name[c.len_utf8()..])),
            None => false,
        },
    }
}

fn naive_path(components: &[Component], names: &[Vec<u8>]) -> bool {
    match components.split_first() {
        None => names.is_empty(),
        Some((Component::AnyDepth, [])) => !names.is_empty(),
        Some((Component::AnyDepth, rest)) => {
            (0..=names.len()).any(|taken| naive_path(rest, &names[taken..]))
        }
        Some((Component::Exact(name), rest)) => names
            .split_first()
            .is_some_and(|(first, others)| **first == **name && naive_path(rest, others)),
        Some((Component::Glob(glob), rest)) => {
            names.split_first().is_some_and(|(first, others)| {
                naive_glob(glob.tokens(), first) && naive_path(rest, others)
            })
        }
    }
}

/// Names and patterns over few letters, so that they meet often.
fn name() -> impl Strategy<Value = Vec<u8>> {
    let letters: [&[u8]; 6] = [b"a", b"b", "ä".as_bytes(), b"\xff", b"\xc3", b"*"];
    prop::collection::vec(prop::sample::select(letters.to_vec()), 1..6)
        .prop_map(|parts| parts.concat())
}

fn component_text() -> impl Strategy<Value = String> {
    let parts = ["a", "b", "ä", "*", "?", r"\xff", r"\xc3", r"\*"];
    let name = prop::collection::vec(prop::sample::select(parts.to_vec()), 1..6)
        .prop_map(|parts| parts.concat())
        .prop_filter("`**` is its own component", |name| !name.contains("**"));
    prop_oneof![4 => name, 1 => Just("**".to_owned())]
}

fn pattern_text() -> impl Strategy<Value = String> {
    prop::collection::vec(component_text(), 0..5).prop_map(|names| format!("/{}", names.join("/")))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_glob_matcher_agrees_with_the_naive_one(text in component_text(), name in name()) {
        prop_assume!(text != "**");
        let glob = GlobPattern::parse(&text).unwrap();
        prop_assert_eq!(glob.matches(&name), naive_glob(glob.tokens(), &name));
    }

    #[test]
    fn the_path_matcher_agrees_with_the_naive_one(
        text in pattern_text(),
        names in prop::collection::vec(name(), 0..5),
    ) {
        let parsed = pattern(&text);
        prop_assert_eq!(parsed.matches(&names), naive_path(parsed.components(), &names));
    }

    #[test]
    fn a_pattern_that_is_written_is_read_back(text in pattern_text()) {
        let parsed = pattern(&text);
        prop_assert_eq!(pattern(&parsed.to_string()), parsed);
    }

    #[test]
    fn any_name_can_be_written_as_a_rule(bytes in prop::collection::vec(1u8.., 1..40)) {
        prop_assume!(!bytes.contains(&b'/') && bytes != b"." && bytes != b"..");
        let exact = PathPattern { components: vec![Component::Exact(bytes.clone().into())] };
        prop_assert_eq!(&pattern(&exact.to_string()), &exact);
        prop_assert!(exact.matches(&[bytes]));
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,40}|[/*?\\\\x0-9a\\[{.~]{0,40}") {
        if let Ok(parsed) = PathPattern::parse(&text) {
            prop_assert_eq!(pattern(&parsed.to_string()), parsed);
        }
    }
}

//! Turns lines of a log into JSON: something to build out of a regular expression engine, a
//! serialiser and a procedural macro.

use std::io::{stdin, BufRead};

paste::paste! {
    /// Names a field of a line.
    const fn [<field_ name>]() -> &'static str {
        "level"
    }
}

fn main() {
    let line = regex::Regex::new(r"^(?P<level>[A-Z]+)\s+(?P<text>\p{L}.*)$").unwrap();
    for text in stdin().lock().lines().map_while(Result::ok) {
        if let Some(found) = line.captures(&text) {
            let json = serde_json::json!({ field_name(): &found["level"], "text": &found["text"] });
            println!("{json}");
        }
    }
}

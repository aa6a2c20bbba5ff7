//! Scripts: text joined at compile time, sent by digest, loaded where Redis does not know it.

use std::collections::HashMap;

use deadpool_redis::redis;

use crate::measure::{Histogram, PROMPT};

/// One transition's script.
#[derive(Debug)]
pub struct Script {
    /// Its file's name, without the ending.
    pub name: &'static str,
    /// Its text: `#!lua`, fragments, body.
    pub text: &'static str,
}

/// Joins `#!lua` with its flags, the fragments named, and the body that stands beside the caller.
macro_rules! script {
    ($name:literal, flags = $flags:literal, [$($fragment:literal),*]) => {
        $crate::store::script::Script {
            name: $name,
            text: concat!(
                "#!lua", $flags, "\n",
                $(include_str!(concat!("lib/", $fragment, ".lua")),)*
                include_str!(concat!($name, ".lua")),
            ),
        }
    };
}
pub(super) use script;

/// A script as Redis knows it.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) sha: String,
    pub(super) text: String,
    /// How long its calls took.
    pub(super) took: Histogram,
}

/// All scripts, by name.
#[derive(Debug)]
pub(super) struct Scripts(HashMap<&'static str, Loaded>);

impl Scripts {
    /// `prelude` comes right after the first line of each; tests watch the scripts' work with it.
    pub(super) fn new(prelude: &str) -> Self {
        let all = super::ops::ALL.iter().map(|script| {
            let text = match script.text.split_once('\n') {
                Some((first, rest)) if !prelude.is_empty() => format!("{first}\n{prelude}\n{rest}"),
                _ => script.text.to_owned(),
            };
            let sha = redis::Script::new(&text).get_hash().to_owned();
            (script.name, Loaded { sha, text, took: Histogram::new(&PROMPT) })
        });
        Scripts(all.collect())
    }

    pub(super) fn get(&self, script: &Script) -> Option<&Loaded> {
        self.0.get(script.name)
    }
}

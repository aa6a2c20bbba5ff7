//! Scripts: joined at compile time, called by digest, loaded if Redis does not know the digest.

use std::collections::BTreeMap;

use deadpool_redis::redis;

use crate::metrics::{Histogram, HistogramSnapshot, LATENCY_BUCKETS};
use crate::store::layout::RECORDS;

/// A field of a hash that scripts name in their code.
#[derive(Debug)]
pub struct Field {
    /// Its name in the code.
    pub name: &'static str,
    /// Its name in Redis, short because every hash repeats it.
    pub stored: &'static str,
    /// Its content.
    pub holds: &'static str,
}

/// One transition's script.
#[derive(Debug)]
pub struct Script {
    /// Name of its file, without the extension.
    pub name: &'static str,
    /// `#!lua` with flags, fragments, body, with the fields by their names in the code.
    pub text: &'static str,
    /// The fields that its code may name.
    pub fields: &'static [Field],
}

impl Script {
    /// The text as Redis gets it: `injected_lua` follows the first line. `F.lease_until` becomes the stored name of that field,
    /// quoted, and `L.queue.format` what the table of layouts has for it. An unknown name stays as it is, and fails when the
    /// script comes to it.
    pub fn full_text(&self, injected_lua: &str) -> String {
        let (first, rest) = self.text.split_once('\n').unwrap_or((self.text, ""));
        let rest = replace_names(rest, "F.", |name| {
            let field = self.fields.iter().find(|field| field.name.eq_ignore_ascii_case(name))?;
            Some(format!("'{}'", field.stored))
        });
        let rest = replace_names(&rest, "L.", |name| {
            let (record, name) = name.split_once('.')?;
            RECORDS.iter().find(|known| known.name == record)?.in_script(name)
        });
        match injected_lua {
            "" => format!("{first}\n{rest}"),
            injected_lua => format!("{first}\n{injected_lua}\n{rest}"),
        }
    }
}

/// Replaces each name behind `prefix`, dots included, that `replacement` knows.
fn replace_names(text: &str, prefix: &str, replacement: impl Fn(&str) -> Option<String>) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut parts = text.split(prefix);
    let mut replaced = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c| !is_word(c) && c != '.').unwrap_or(part.len());
        let (name, _) = part.split_at(end);
        // Two dots join texts, and one ends a sentence.
        let name = name.split("..").next().unwrap_or_default().trim_end_matches('.');
        let ends_a_word = replaced.ends_with(is_word);
        match replacement(name).filter(|_| !ends_a_word) {
            Some(value) => replaced.extend([&value, part.get(name.len()..).unwrap_or_default()]),
            None => replaced.extend([prefix, part]),
        }
    }
    replaced
}

/// Joins `#!lua` with flags, fragments, and the body beside the caller.
///
/// - `write`: also runs when Redis' memory is full, so that a full store can drain.
/// - `touch`: the same, and runs also while the shard's clock is not confirmed.
/// - `grow`: writes, and is refused when Redis' memory is full.
/// - `read`: only reads.
///
/// A script pays for each function and table that it defines. `("local function define_x()" ["one", "other"])` wraps fragments that
/// few calls need in a function, which such a call calls first; the last of them ends with what it returns. All but the first
/// two fragments of a script that writes are a function too: Lua searches the variables that its functions share with each
/// other, all of them, unless they are those of an outer function.
macro_rules! script {
    (write $name:literal, [$($fragment:tt),* $(,)?]) => {
        script!(@write $name, " flags=allow-oom", [] $($fragment)*)
    };
    (touch $name:literal, [$($fragment:tt),* $(,)?]) => {
        script!(@write $name, " flags=allow-oom", ["any_clock"] $($fragment)*)
    };
    (grow $name:literal, [$($fragment:tt),* $(,)?]) => {
        script!(@write $name, "", [] $($fragment)*)
    };
    (read $name:literal, [$($fragment:tt),* $(,)?]) => {
        script!(@ $name, "#!lua flags=no-writes\n", script!(% "read_prelude"), $(script!(% $fragment),)* script!(@body $name))
    };
    (@write $name:literal, $flags:literal, [$($clock:literal)?] $($fragment:tt)*) => {
        script!(
            @ $name, concat!("#!lua", $flags, "\n"), script!(% "prelude"), script!(% "clock"), "return (function()\n",
            script!(% "transaction"), script!(% "records"), script!(% "open_call"), $(script!(% $clock),)?
            $(script!(% $fragment),)* script!(@body $name), "end)()\n"
        )
    };
    (@body $name:literal) => {
        include_str!(concat!($name, ".lua"))
    };
    (% $fragment:literal) => {
        include_str!(concat!("../ops/lib/", $fragment, ".lua"))
    };
    (% ($head:literal [$($fragment:literal),*])) => {
        concat!($head, "\n", $(script!(% $fragment),)* "end\n")
    };
    (@ $name:literal, $($part:expr),*) => {
        $crate::store::redis::script::Script {
            name: $name,
            text: concat!($($part),*),
            fields: $crate::store::record::FIELDS,
        }
    };
}
pub(in crate::store) use script;

/// A script as Redis knows it.
#[derive(Debug)]
pub(in crate::store) struct LoadedScript {
    /// With the flags of the script.
    plain: ScriptText,
    /// Without the flag that lets it run when Redis is full.
    growing: ScriptText,
    /// Latency of its calls.
    pub(in crate::store) latency: Histogram,
}

/// A text and its digest.
#[derive(Debug)]
pub(in crate::store) struct ScriptText {
    pub(in crate::store) sha: String,
    pub(in crate::store) text: String,
}

impl ScriptText {
    fn new(text: String) -> Self {
        ScriptText { sha: redis::Script::new(&text).get_hash().to_owned(), text }
    }
}

impl LoadedScript {
    /// Returns the text, and its digest. With `is_growing`, Redis rejects it when its memory is full.
    pub(in crate::store) fn text(&self, is_growing: bool) -> &ScriptText {
        if is_growing { &self.growing } else { &self.plain }
    }
}

/// All scripts, by name.
#[derive(Debug)]
pub(in crate::store) struct Scripts(BTreeMap<&'static str, LoadedScript>);

impl Scripts {
    /// Loads `scripts`. Inserts `injected_lua` after the first line of each; tests observe the scripts with it.
    pub(in crate::store) fn new(scripts: &[&'static Script], injected_lua: &str) -> Self {
        let loaded = scripts.iter().map(|script| {
            let text = script.full_text(injected_lua);
            let growing = ScriptText::new(text.replacen(" flags=allow-oom", "", 1));
            let plain = ScriptText::new(text);
            (script.name, LoadedScript { plain, growing, latency: Histogram::new(&LATENCY_BUCKETS) })
        });
        Scripts(loaded.collect())
    }

    pub(in crate::store) fn get(&self, script: &Script) -> Option<&LoadedScript> {
        self.0.get(script.name)
    }

    /// Returns the durations of calls by script name.
    pub(super) fn durations(&self) -> impl Iterator<Item = (&'static str, HistogramSnapshot)> {
        self.0.iter().map(|(name, loaded)| (*name, loaded.latency.read()))
    }
}

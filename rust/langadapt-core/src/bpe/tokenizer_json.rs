//! Reads a Hugging Face `tokenizer.json` into the values of [`super::spec`].
//!
//! Takes what the two native families need and says why where a file asks for more. Nothing is built here; see
//! [`NativeTokenizer::load`](super::NativeTokenizer::load).

use std::path::Path;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;

use super::added::AddedToken;
use super::normalize::{Form, Step};
use super::spec::{DecodeStep, METASPACE, Model, Prepend, Spec, Split, Target};
use crate::pretokenize::{Behavior, Scanner};
use crate::{Error, Result};

/// Why a file is left to the `tokenizers` package, for the log.
pub type Foreign = String;

#[derive(Deserialize)]
struct File<'a> {
    #[serde(default)]
    added_tokens: Vec<RawAdded>,
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    post_processor: Option<Value>,
    decoder: Option<Value>,
    #[serde(borrow)]
    model: &'a RawValue,
}

#[derive(Deserialize)]
struct RawAdded {
    id: u32,
    content: String,
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
    normalized: bool,
    special: bool,
}

/// `type` of the models that are read here.
const BPE: &str = "BPE";

/// What tells the kind of model; old files do not say it.
#[derive(Deserialize)]
struct ModelKind {
    #[serde(rename = "type")]
    kind: Option<String>,
    merges: Option<IgnoredAny>,
}

/// Reads `bytes`, the contents of `path`, which is named in errors.
///
/// # Errors
/// [`Error::Data`] where this is no `tokenizer.json`. A sound file that asks for something else than the native
/// families offer is `Ok(Err(reason))`.
pub fn read(bytes: &[u8], path: &Path) -> Result<std::result::Result<Spec, Foreign>> {
    let bad = |error: serde_json::Error| {
        let detail = format!("not a tokenizer.json that Hugging Face tokenizers would read: {error}");
        Error::Data { path: path.into(), line: Some(error.line() as u64), detail }
    };
    let file: File = serde_json::from_slice(bytes).map_err(bad)?;
    // What the model is called is looked up only where it cannot be read as one of ours: the lists are long.
    match serde_json::from_str::<Model>(file.model.get()) {
        Ok(model) if model.kind.as_deref().is_none_or(|kind| kind == BPE) => Ok(spec(file, model)),
        read => {
            let kind: ModelKind = serde_json::from_str(file.model.get()).map_err(bad)?;
            match (kind.kind.as_deref(), read) {
                (None, Err(error)) if kind.merges.is_some() => Err(bad(error)),
                (Some(BPE), Err(error)) => Err(bad(error)),
                (other, _) => Ok(Err(format!("the model is {}, not BPE", other.unwrap_or("of no stated type")))),
            }
        }
    }
}

fn spec(file: File<'_>, model: Model) -> std::result::Result<Spec, Foreign> {
    if model.dropout.is_some_and(|dropout| dropout != 0.0) {
        return Err("the model has dropout".into());
    }
    for affix in [&model.continuing_subword_prefix, &model.end_of_word_suffix] {
        if let Some(affix) = affix.as_deref().filter(|affix| !affix.is_empty()) {
            return Err(format!("the model has a subword prefix or word suffix: {affix}"));
        }
    }
    let added = file.added_tokens.into_iter().map(|raw| AddedToken {
        content: raw.content,
        id: raw.id,
        single_word: raw.single_word,
        lstrip: raw.lstrip,
        rstrip: raw.rstrip,
        normalized: raw.normalized,
        special: raw.special,
    });
    let mut spec = Spec { model, added: added.collect(), ..steps(file.normalizer, file.pre_tokenizer)? };
    for step in flatten(file.post_processor, "processors") {
        add_processor(&mut spec, &step)?;
    }
    if file.decoder.as_ref().is_some_and(|decoder| !decoder.is_null()) {
        let steps = flatten(file.decoder, "decoders");
        spec.decoder = Some(steps.iter().map(decode_step).collect::<std::result::Result<_, _>>()?);
    }
    Ok(spec)
}

/// What a normalizer and a pre-tokenizer do, the rest of the file left empty.
///
/// # Errors
/// What in them is foreign.
pub fn steps(normalizer: Option<Value>, pre_tokenizer: Option<Value>) -> std::result::Result<Spec, Foreign> {
    let mut spec = Spec::default();
    for step in flatten(normalizer, "normalizers") {
        add_normalizer(&mut spec, &step)?;
    }
    for step in flatten(pre_tokenizer, "pretokenizers") {
        add_split(&mut spec, &step)?;
    }
    Ok(spec)
}

/// The steps of a component: none, one, or those of a `Sequence`, however nested.
fn flatten(component: Option<Value>, list: &str) -> Vec<Value> {
    match component {
        None | Some(Value::Null) => Vec::new(),
        Some(mut value) if kind(&value) == "Sequence" => match value[list].take() {
            Value::Array(steps) => steps.into_iter().flat_map(|step| flatten(Some(step), list)).collect(),
            _ => vec![value],
        },
        Some(value) => vec![value],
    }
}

fn kind(step: &Value) -> &str {
    step["type"].as_str().unwrap_or("of no stated type")
}

fn add_normalizer(spec: &mut Spec, step: &Value) -> std::result::Result<(), Foreign> {
    let normal = match kind(step) {
        "NFC" => Step::Form(Form::Nfc),
        "NFD" => Step::Form(Form::Nfd),
        "NFKC" => Step::Form(Form::Nfkc),
        "NFKD" => Step::Form(Form::Nfkd),
        "Prepend" if step["prepend"] == METASPACE && !spec.prepend => {
            spec.prepend = true;
            return Ok(());
        }
        "Replace" if step["pattern"]["String"] == " " && step["content"] == METASPACE && !spec.replace => {
            spec.replace = true;
            return Ok(());
        }
        "Replace" => replacement(step)?,
        _ => return Err(format!("normalizer {step}")),
    };
    if spec.prepend || spec.replace {
        return Err(format!("normalizer {} after Prepend or Replace", kind(step)));
    }
    spec.normal.push(normal);
    Ok(())
}

fn replacement(step: &Value) -> std::result::Result<Step, Foreign> {
    let foreign = || format!("normalizer {step}");
    let to = step["content"].as_str().ok_or_else(foreign)?.to_owned();
    let from = match target(step).ok_or_else(foreign)? {
        Target::Text(text) => Scanner::literal(&text).ok_or_else(foreign)?,
        Target::Regex(regex) => Scanner::new(&regex).map_err(|outside| format!("{outside} of the regex {regex}"))?,
    };
    Ok(Step::Replace { from: Box::new(from), to })
}

/// The `pattern` of a step.
fn target(step: &Value) -> Option<Target> {
    let pattern = &step["pattern"];
    let text = || Some(Target::Text(pattern["String"].as_str()?.to_owned()));
    pattern["Regex"].as_str().map(|regex| Target::Regex(regex.to_owned())).or_else(text)
}

fn add_split(spec: &mut Spec, step: &Value) -> std::result::Result<(), Foreign> {
    let foreign = || Err(format!("pre-tokenizer {step}"));
    let split = match kind(step) {
        "Metaspace" if step["replacement"] == METASPACE => metaspace(step)?,
        "ByteLevel" => Split::ByteLevel {
            add_prefix_space: step["add_prefix_space"].as_bool().unwrap_or(true),
            use_regex: step["use_regex"].as_bool().unwrap_or(true),
        },
        "Digits" => Split::Digits { individual: step["individual_digits"].as_bool().unwrap_or(false) },
        "Punctuation" => Split::Punctuation(behavior(step).unwrap_or(Behavior::Isolated)),
        // Gemma splits at spaces after it has replaced them all: nothing is left to split at.
        "Split" if step["pattern"]["String"] == " " && spec.replace => return Ok(()),
        "Split" => match (target(step), behavior(step)) {
            (Some(at), Some(behavior)) => Split::At { at, behavior, invert: step["invert"] == true },
            _ => return foreign(),
        },
        _ => return foreign(),
    };
    spec.splits.push(split);
    Ok(())
}

fn behavior(step: &Value) -> Option<Behavior> {
    Behavior::named(step["behavior"].as_str()?)
}

fn metaspace(step: &Value) -> std::result::Result<Split, Foreign> {
    let prepend = match (step["prepend_scheme"].as_str(), step["add_prefix_space"].as_bool()) {
        (Some("never"), _) | (None, Some(false)) => Prepend::Never,
        (Some("always") | None, _) => Prepend::Always,
        (Some("first"), _) => Prepend::First,
        (Some(_), _) => return Err(format!("pre-tokenizer {step}")),
    };
    Ok(Split::Metaspace { prepend, split: step["split"].as_bool().unwrap_or(true) })
}

fn add_processor(spec: &mut Spec, step: &Value) -> std::result::Result<(), Foreign> {
    let foreign = || format!("post-processor {step}");
    let (prefix, suffix) = match kind(step) {
        "ByteLevel" => return Ok(()),
        "RobertaProcessing" | "BertProcessing" => {
            let id = |name: &str| step[name][1].as_u64().map(|id| id as u32).ok_or_else(foreign);
            (vec![id("cls")?], vec![id("sep")?])
        }
        "TemplateProcessing" => template(step).ok_or_else(foreign)?,
        _ => return Err(foreign()),
    };
    // Later processors work on what earlier ones made.
    spec.prefix.splice(0..0, prefix);
    spec.suffix.extend(suffix);
    Ok(())
}

/// Ids before and behind the text in the `single` template; `None` where it is not of this form.
fn template(step: &Value) -> Option<(Vec<u32>, Vec<u32>)> {
    let mut sides = [Vec::new(), Vec::new()];
    let mut side = 0;
    for part in step["single"].as_array()? {
        if part["Sequence"]["id"] == "A" {
            side += 1;
        } else {
            let name = part["SpecialToken"]["id"].as_str()?;
            let ids = step["special_tokens"][name]["ids"].as_array()?;
            for id in ids {
                sides.get_mut(side)?.push(u32::try_from(id.as_u64()?).ok()?);
            }
        }
    }
    let [prefix, suffix] = sides;
    (side == 1).then_some((prefix, suffix))
}

fn decode_step(step: &Value) -> std::result::Result<DecodeStep, Foreign> {
    let foreign = || format!("decoder {step}");
    let character = |name: &str| {
        let mut characters = step[name].as_str().unwrap_or_default().chars();
        characters.next().filter(|_| characters.next().is_none()).ok_or_else(foreign)
    };
    Ok(match kind(step) {
        "ByteLevel" => DecodeStep::ByteLevel,
        "ByteFallback" => DecodeStep::ByteFallback,
        "Fuse" => DecodeStep::Fuse,
        "Metaspace" => match metaspace(step)? {
            Split::Metaspace { prepend, .. } => {
                DecodeStep::Metaspace { replacement: character("replacement")?, drop_first: prepend != Prepend::Never }
            }
            _ => return Err(foreign()),
        },
        "Strip" => DecodeStep::Strip {
            content: character("content")?,
            start: step["start"].as_u64().ok_or_else(foreign)? as usize,
            stop: step["stop"].as_u64().ok_or_else(foreign)? as usize,
        },
        "Replace" => match (step["pattern"]["String"].as_str(), step["content"].as_str()) {
            (Some(from), Some(to)) if !from.is_empty() => DecodeStep::Replace { from: from.into(), to: to.into() },
            _ => return Err(foreign()),
        },
        _ => return Err(foreign()),
    })
}

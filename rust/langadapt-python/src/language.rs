//! Whether a text is in the language of a corpus.

use std::sync::Arc;

use langadapt_core::corpus::{Judged, Language};
use pyo3::prelude::*;

use crate::gate;

/// A language that was learnt from texts of it, `own`, and of another one, `foreign`.
#[pyclass(name = "Language", module = "langadapt._core", frozen)]
pub struct PyLanguage(pub Arc<Language>);

#[pymethods]
impl PyLanguage {
    /// # Errors
    /// `ValueError`: too little text, or texts that cannot be told apart.
    #[new]
    fn new(py: Python<'_>, own: Vec<String>, foreign: Vec<String>) -> PyResult<Self> {
        gate::run(py, None, |monitor| Language::learn(&own, &foreign, monitor)).map(|found| Self(Arc::new(found)))
    }

    /// `own`, `foreign`, `script` or `short` for each text.
    fn judge(&self, py: Python<'_>, texts: Vec<String>) -> PyResult<Vec<&'static str>> {
        gate::run(py, None, |monitor| {
            texts.iter().map(|text| monitor.check().map(|()| name(self.0.judge(text)))).collect()
        })
    }
}

fn name(judged: Judged) -> &'static str {
    match judged {
        Judged::Own => "own",
        Judged::Foreign => "foreign",
        Judged::Script => "script",
        Judged::Short => "short",
    }
}

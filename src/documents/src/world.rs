//! All that a Typst template can reach: itself, the document, the logo, the built-in template and the fonts. There are
//! no files, no packages and no clock.

use std::collections::HashMap;

use typst::diag::{FileError, FileResult};
use typst::foundations::{Bytes, Datetime, Duration};
use typst::syntax::{FileId, RootedPath, Source, VirtualPath, VirtualRoot};
use typst::text::{Font, FontBook};
use typst::utils::LazyHash;
use typst::{Library, LibraryExt, World};

use crate::document::Document;
use crate::fault::Fault;
use crate::pdf;

/// What a tenant's template is called, inside.
pub const TENANTS: &str = "template.typ";

/// What tenants' templates can import: `#import "invoice.typ": invoice`.
const BUILT_IN: &str = include_str!("../templates/invoice.typ");

/// What is rendered without a template.
const MAIN: &str = "#import \"invoice.typ\": invoice\n#invoice(json(\"document.json\"))\n";

/// The first are what templates ask for, the others what takes over where those have no letter. Origin and licence of
/// each: fonts/README.md.
static FONTS: [&[u8]; 7] = [
    include_bytes!("../fonts/Inter-Regular.otf"),
    include_bytes!("../fonts/Inter-SemiBold.otf"),
    include_bytes!("../fonts/NotoSansArabic-Regular.ttf"),
    include_bytes!("../fonts/NotoSansHebrew-Regular.ttf"),
    include_bytes!("../fonts/NotoSansThai-Regular.ttf"),
    include_bytes!("../fonts/NotoSansDevanagari-Regular.ttf"),
    include_bytes!("../fonts/wqy-microhei.ttc"),
];

pub struct Paper {
    library: LazyHash<Library>,
    book: LazyHash<FontBook>,
    fonts: Vec<Font>,
    main: FileId,
    sources: HashMap<FileId, Source>,
    files: HashMap<FileId, Bytes>,
    today: Option<Datetime>,
}

impl Paper {
    pub fn new(document: &Document, template: Option<&str>) -> Result<Paper, Fault> {
        let fonts: Vec<Font> = FONTS.iter().flat_map(|bytes| Font::iter(Bytes::new(*bytes))).collect();
        let main = file(TENANTS)?;
        let mut sources = HashMap::new();
        for (id, text) in [(main, template.unwrap_or(MAIN)), (file("invoice.typ")?, BUILT_IN)] {
            sources.insert(id, Source::new(id, text.to_string()));
        }
        let mut files = HashMap::new();
        let mut data = serde_json::to_value(document).map_err(|error| Fault::internal(error.to_string()))?;
        // A template draws the logo from its file; as text it would only be in the way.
        if let Some((name, bytes)) = document.logo()? {
            files.insert(file(name)?, Bytes::new(bytes));
            data["seller"]["logo"] = name.into();
        }
        let data = serde_json::to_vec(&data).map_err(|error| Fault::internal(error.to_string()))?;
        files.insert(file("document.json")?, Bytes::new(data));
        Ok(Paper {
            library: LazyHash::new(Library::default()),
            book: LazyHash::new(FontBook::from_fonts(&fonts)),
            fonts,
            main,
            sources,
            files,
            today: pdf::issued(document),
        })
    }
}

fn file(name: &str) -> Result<FileId, Fault> {
    let path = VirtualPath::new(name).map_err(|error| Fault::internal(format!("{name}: {error:?}")))?;
    Ok(FileId::new(RootedPath::new(VirtualRoot::Project, path)))
}

impl World for Paper {
    fn library(&self) -> &LazyHash<Library> {
        &self.library
    }

    fn book(&self) -> &LazyHash<FontBook> {
        &self.book
    }

    fn main(&self) -> FileId {
        self.main
    }

    fn source(&self, id: FileId) -> FileResult<Source> {
        self.sources.get(&id).cloned().ok_or_else(|| absent(id))
    }

    fn file(&self, id: FileId) -> FileResult<Bytes> {
        if let Some(bytes) = self.files.get(&id) {
            return Ok(bytes.clone());
        }
        self.source(id).map(Bytes::from_string)
    }

    fn font(&self, index: usize) -> Option<Font> {
        self.fonts.get(index).cloned()
    }

    /// A document drawn again must be the same document.
    fn today(&self, _offset: Option<Duration>) -> Option<Datetime> {
        self.today
    }
}

fn absent(id: FileId) -> FileError {
    let path = id.vpath().get_without_slash();
    match id.root() {
        VirtualRoot::Package(package) => {
            FileError::Other(Some(format!("{package} can not be had: templates load no packages").into()))
        }
        VirtualRoot::Project => FileError::Other(Some(
            format!("there is no {path}: a template has document.json, invoice.typ and the document's logo").into(),
        )),
    }
}

//! What INFO says.

use std::collections::HashMap;
use std::str::FromStr;

use resp::Reply;

use crate::connection::Connection;

/// All fields, at one moment.
pub(crate) struct Info {
    fields: HashMap<String, String>,
}

impl Info {
    pub(crate) fn ask(connection: &mut Connection) -> Result<Info, String> {
        let Reply::Bulk(text) = connection.call(&[b"INFO", b"everything"])? else {
            return Err("INFO was not answered with a text".into());
        };
        let text = String::from_utf8_lossy(&text);
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        Ok(Info {
            fields: fields
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        })
    }

    /// The number that stands there.
    pub(crate) fn number<T: FromStr>(&self, name: &str) -> Result<T, String> {
        let value = self.fields.get(name);
        let number = value.and_then(|value| value.trim().parse().ok());
        number.ok_or_else(|| match value {
            Some(value) => format!("INFO says {name}:{value}, which is not such a number"),
            None => format!("INFO does not say {name}"),
        })
    }
}

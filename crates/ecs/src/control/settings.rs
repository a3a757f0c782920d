use super::Control;
use crate::error::Error;
use crate::page::{self, Order, Page};
use crate::record::{self, Record, key};
use crate::setting::{DEFAULTS, Setting, check_name};

impl Control {
    /// Settings that were put or, with `effective`, all with the defaults where nothing was put.
    pub fn list_account_settings(
        &self,
        name: Option<&str>,
        value: Option<&str>,
        effective: bool,
        next_token: Option<&str>,
        maximum: Option<i64>,
    ) -> Result<Page<Setting>, Error> {
        name.map_or(Ok(()), check_name)?;
        let mut settings = Vec::new();
        for (known, default) in DEFAULTS {
            if name.is_some_and(|name| name != known) {
                continue;
            }
            let put: Option<Record<String>> = record::read(&*self.store, &key::setting(known))?;
            let current = put.map(|record| record.value);
            let Some(current) = current.or_else(|| effective.then(|| default.to_owned())) else {
                continue;
            };
            if value.is_none_or(|value| value == current) {
                settings.push(self.setting(known, current));
            }
        }
        settings.sort_by(|one, other| one.name.cmp(&other.name));
        page::cut(settings, |setting| setting.name.clone(), Order::Ascending, next_token, maximum)
    }

    /// Sets a setting for the account; Bulkhead has one principal.
    pub fn put_account_setting(&self, name: &str, value: &str) -> Result<Setting, Error> {
        check_name(name)?;
        if value.is_empty() {
            return Err(Error::invalid(format!(
                "The value of the setting {name} must not be empty."
            )));
        }
        self.store.commit(&[], &[record::put(&key::setting(name), &value)])?;
        Ok(self.setting(name, value.to_owned()))
    }

    fn setting(&self, name: &str, value: String) -> Setting {
        Setting {
            name: name.to_owned(),
            value,
            principal_arn: Some(format!("arn:aws:iam::{}:root", self.place().account)),
            kind: Some("user".into()),
        }
    }
}

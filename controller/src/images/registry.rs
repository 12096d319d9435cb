//! What an image runs, asked of its registry. IO; answers are read in `ropewalk-core`.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use ropewalk_core::images::manifest::{ImageConfig, Manifest};
use ropewalk_core::images::reference::{Digest, Reference, Version};
use ropewalk_core::images::{Command, Commands, Image, Wanted};
use ropewalk_registry::{Access, Method, Registries, Session};

use super::digests::Digests;

/// What commands may amount to: they end up in every pod. A hundredth of it is much.
const MAX_COMMANDS: usize = 32 << 10;
/// Requests at once to one registry for one image.
const AT_ONCE: usize = 4;

/// Why it is not known what an image runs. For users' eyes.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The registry does not tell.
    #[error(transparent)]
    Registry(#[from] ropewalk_registry::Error),
    /// Nothing to run.
    #[error("the image has neither ENTRYPOINT nor CMD; set the step's command or script")]
    NoCommand,
    /// Too much to run.
    #[error(
        "the image's commands amount to more than {MAX_COMMANDS} bytes; set the step's command or script"
    )]
    LongCommand,
}

impl Error {
    /// Another time may have another outcome.
    pub(super) fn is_transient(&self) -> bool {
        matches!(self, Self::Registry(error) if error.is_transient())
    }
}

/// Finds out what an image runs; `reference` is the wanted image's.
pub(super) async fn look_up(
    registries: &Registries,
    wanted: &Wanted,
    reference: &Reference,
    access: Access<'_>,
    known: &Digests,
) -> Result<Image, Error> {
    let sessions = registries.sessions(reference, access)?;
    for mirror in &sessions.mirrors {
        if let Ok(image) = look_up_at(mirror, wanted, reference, known).await {
            return Ok(image);
        }
    }
    look_up_at(&sessions.registry, wanted, reference, known).await
}

async fn look_up_at(
    session: &Session<'_>,
    wanted: &Wanted,
    reference: &Reference,
    known: &Digests,
) -> Result<Image, Error> {
    let path = format!("manifests/{}", reference.version);
    let (digest, content) = match &reference.version {
        Version::Digest(digest) => {
            let response = session.request(Method::GET, &path).await?;
            (Some(digest.clone()), Some(response))
        }
        Version::Tag(_) => (session.digest(&reference.version).await?, None),
    };
    if let Some(digest) = &digest
        && let Some(commands) = known.get(wanted, reference, digest)
    {
        return Ok(Image { reference: reference.at(digest), commands });
    }
    let response = match (content, &digest) {
        (Some(response), _) => response,
        (None, Some(digest)) => session.request(Method::GET, &format!("manifests/{digest}")).await?,
        // A registry that says nothing to HEAD.
        (None, None) => session.request(Method::GET, &path).await?,
    };
    let content = session.content(response, digest.as_ref()).await?;
    let digest = digest.unwrap_or_else(|| Digest::of(&content));
    let (commands, whole) = commands(session, &content).await?;
    let commands = Arc::new(commands);
    if whole {
        known.put(wanted, reference, &digest, &commands);
    }
    Ok(Image { reference: reference.at(&digest), commands })
}

/// What an image or an index of images runs, and whether the registry has all of it: what one leaves out, another one may
/// have under the same digest.
async fn commands(session: &Session<'_>, content: &[u8]) -> Result<(Commands, bool), Error> {
    let (commands, platforms) = match session.manifest(content)? {
        Manifest::Image(config) => {
            let config = self::config(session, &config).await?;
            (BTreeMap::from([(config.platform, config.command)]), 1)
        }
        Manifest::Index(platforms) => {
            let count = platforms.len();
            let commands: BTreeMap<_, _> = stream::iter(platforms)
                .map(|platform| async move {
                    let command = self::platform(session, &platform.manifest).await?;
                    Ok::<_, Error>(command.map(|command| (platform.name, command)))
                })
                .buffered(AT_ONCE)
                .try_filter_map(|found| async { Ok(found) })
                .try_collect()
                .await?;
            (commands, count)
        }
    };
    let whole = commands.len() == platforms;
    let commands = Commands(commands);
    check(&commands)?;
    Ok((commands, whole))
}

/// Whether there is something to run, and not too much.
pub(super) fn check(Commands(commands): &Commands) -> Result<(), Error> {
    let words = commands.values().flat_map(|it: &Command| it.entrypoint.iter().chain(&it.cmd));
    if commands.values().all(Command::is_empty) {
        return Err(Error::NoCommand);
    }
    if words.map(String::len).sum::<usize>() > MAX_COMMANDS {
        return Err(Error::LongCommand);
    }
    Ok(())
}

/// The command of one image of an index. Mirrors leave platforms out that nobody there uses.
async fn platform(session: &Session<'_>, digest: &Digest) -> Result<Option<Command>, Error> {
    let response = session.request(Method::GET, &format!("manifests/{digest}")).await?;
    let content = match session.content(response, Some(digest)).await {
        Err(ropewalk_registry::Error::Missing { .. }) => return Ok(None),
        content => content?,
    };
    match session.manifest(&content)? {
        Manifest::Image(config) => Ok(Some(self::config(session, &config).await?.command)),
        Manifest::Index(_) => Ok(None),
    }
}

async fn config(session: &Session<'_>, digest: &Digest) -> Result<ImageConfig, Error> {
    let content = session.blob(digest).await?;
    Ok(ImageConfig::parse(&content).map_err(|source| session.bad_manifest(source))?)
}

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

use super::*;

/// What stands behind a user; checked by nobody here.
const HASH: &str = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA";

fn code(done: Result<(), Failure>) -> u8 {
    done.map_or_else(|failure| failure.code, |()| exit::OK)
}

#[test]
fn a_password_that_was_set_is_the_one_that_fits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users");
    assert_eq!(code(set(&path, "anna", || Ok(b"first".to_vec()))), exit::OK);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(code(set(&path, "anna", || Ok(b"second".to_vec()))), exit::OK);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&path).unwrap();
    let users = Users::parse(&text);
    assert_eq!((users.len(), users.skipped.len()), (1, 0));
    assert!(passwords::verify(b"second", users.hash_of("anna").unwrap()));
    assert!(!text.contains("second"));
    assert_eq!(code(delete(&path, "anna")), exit::OK);
    assert_eq!(fs::read_to_string(&path).unwrap(), "");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "something was left behind");
}

#[test]
fn failures_have_their_codes_and_leave_the_file_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users");
    assert_eq!(code(delete(&path, "anna")), exit::NOINPUT);
    assert_eq!(code(list(&path)), exit::NOINPUT);
    fs::write(&path, format!("# people\nanna:{HASH}\n")).unwrap();
    let before = fs::read(&path).unwrap();
    assert_eq!(code(delete(&path, "bob")), exit::DATAERR);
    assert_eq!(code(set(&path, "a:b", || Ok(b"x".to_vec()))), exit::DATAERR);
    let twice = Failure::new(exit::DATAERR, "set a password: the two are not the same");
    assert_eq!(code(set(&path, "anna", || Err(twice))), exit::DATAERR);
    fs::write(folder.path().join("users.new"), "").unwrap();
    assert_eq!(code(set(&path, "anna", || Ok(b"x".to_vec()))), exit::TEMPFAIL);
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(code(set(&folder.path().join("no/folder"), "anna", || Ok(b"x".to_vec()))), exit::NOINPUT);
}

#[test]
fn a_link_stays_one() {
    let folder = tempfile::tempdir().unwrap();
    let (path, link) = (folder.path().join("users"), folder.path().join("link"));
    fs::write(&path, format!("anna:{HASH}\nbob:{HASH}\n")).unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert_eq!(code(delete(&link, "anna")), exit::OK);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("bob:{HASH}\n"));
}

#[test]
fn a_password_is_one_line() {
    let read = |text: &[u8]| read_line(&mut &text[..]).map_err(|failure| failure.code);
    assert_eq!(read(b"secret\r\nmore"), Ok(b"secret".to_vec()));
    assert_eq!(read(b" with blanks "), Ok(b" with blanks ".to_vec()));
    assert_eq!(read(b""), Ok(Vec::new()));
    assert_eq!(read(&[b'x'; 4096]), Ok(vec![b'x'; 4096]));
    assert_eq!(read(&[b'x'; 5000]), Err(exit::DATAERR));
}

#[test]
fn what_ends_the_lines_of_others_stays() {
    let text = "#\r\r\nbob:1\r\nanna:2\r\ncarl:3";
    assert_eq!(with_line(text, "anna", Some("anna:new")), "#\r\r\nbob:1\r\nanna:new\ncarl:3\n");
    assert_eq!(with_line(text, "dora", Some("dora:4")), "#\r\r\nbob:1\r\nanna:2\r\ncarl:3\ndora:4\n");
    assert_eq!(with_line(text, "anna", None), "#\r\r\nbob:1\r\ncarl:3\n");
}

proptest! {
    #[test]
    fn only_the_users_own_lines_change(
        lines in prop::collection::vec(prop_oneof!["#.{0,10}", "(anna|bob|carl):[a-z]{0,5}", ".{0,10}"], 0..8),
        delete in any::<bool>(),
    ) {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let new = with_line(&text, "anna", (!delete).then_some("anna:new"));
        let others = |text: &str| -> Vec<String> {
            text.lines().filter(|line| passwords::user_of(line) != Some("anna")).map(str::to_owned).collect()
        };
        prop_assert_eq!(others(&new), others(&text));
        let own: Vec<&str> = new.lines().filter(|line| passwords::user_of(line) == Some("anna")).collect();
        prop_assert_eq!(own, if delete { vec![] } else { vec!["anna:new"] });
    }
}

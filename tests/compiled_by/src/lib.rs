//! With what command the crate that asks is being compiled.
//!
//! A test that compiles programs against Swathe must find the libraries that Cargo has built for it. Several may lie side by
//! side in one folder, with other features, profiles or compilers, and nothing in their names tells them apart. The command
//! that compiles the test names the right ones, and whoever expands its macros is that command.

use proc_macro::{Delimiter, Group, Literal, Punct, Spacing, TokenStream, TokenTree};

/// A `&[&str]`: the compiler's path, and the arguments that Cargo has given it for the crate that writes this.
#[proc_macro]
pub fn compiled_by(_: TokenStream) -> TokenStream {
    let compiler = std::env::current_exe().expect("the compiler has a path");
    let strings = std::iter::once(compiler.into_os_string())
        .chain(std::env::args_os().skip(1))
        .flat_map(|argument| {
            let text = argument.into_string().expect("arguments are UTF-8");
            [
                TokenTree::from(Literal::string(&text)),
                Punct::new(',', Spacing::Alone).into(),
            ]
        });
    let list = Group::new(Delimiter::Bracket, strings.collect());
    [TokenTree::from(Punct::new('&', Spacing::Alone)), list.into()]
        .into_iter()
        .collect()
}

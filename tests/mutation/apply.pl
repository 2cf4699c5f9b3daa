# SPDX-License-Identifier: Apache-2.0
# apply.pl MUTATION TREE: replaces the old lines by the new ones. Exit 1, and why, unless they occur exactly once.
use strict;
use warnings;

my ($mutation, $tree) = @ARGV;
local $/;

sub read_all {
        open(my $f, '<', $_[0]) or die "$_[0]: $!\n";
        return scalar <$f>;
}

my ($head, $old, $new) = read_all($mutation) =~ /\A(.*?)^--- old\n(.*?)^\+\+\+ new\n(.*)\z/ms
        or die "$mutation: no '--- old' and '+++ new'\n";
my ($file) = $head =~ /^file: *(\S+)$/m or die "$mutation: no 'file:'\n";
my $text = read_all("$tree/$file");
my $n = () = $text =~ /\Q$old\E/g;
die "$file has the old lines $n times, not once\n" if $n != 1;
$text =~ s/\Q$old\E/$new/;
open(my $f, '>', "$tree/$file") or die "$tree/$file: $!\n";
print $f $text;
close($f) or die "$tree/$file: $!\n";

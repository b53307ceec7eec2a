"""Common English words that no task uses, so that users can vary a prompt without leaving the vocabulary.

The models see them in the random-repeat stream only: they can copy them, and know nothing of their meaning.
"""

SPARE = """
about above across again against all almost along already also although always among and another any
anything are around as ask asked away back bad be became because become been began behind being
below best better between big bird boat body bought boy bread breakfast bring broke brother build
built bus business but buy by call came can car care cat change child children city clean clear
climb close cloud cold come cook corner could country cow cross cry cut dance dark daughter day deep
did different do doctor dog door down draw dream drink drive drop dry during each ear early earth
east easy eat egg either end enough even evening ever every everyone everything eye face fall family
far fast father feel feet few field find fine finger fire first fish five fly follow food foot
forest forget forgot four free fresh friend full game garden get girl give given glass go going good
grass great ground group grow hair half hand happen happy hard have he head hear heart heavy help
her here high hill him his hold home hope horse hot hour how hundred hurry ice idea if inside into
it its job join jump just keep kept kind king kitchen knew know land large last late laugh lay lead
learn leave left leg less let life light like line list little live long look lose lost lot loud
love low made make man many market may maybe me meal mean meat men middle might milk mind minute
miss money month moon more most mother mountain mouth move much music must my name near need never
new next nice night no none north nose not note nothing now number of off often oh old on once one
only open or other our out outside over own page paint paper part party pass past pay people perhaps
person picture piece place plan plant play please point poor price pull push put question quick
quiet quite rain read ready real really remember rest rich ride right river road rock room round
rule run sad said sail salt same sand save saw say sea season second see seem seen sell send
sentence seven several shall share she sheep ship short should shout show sick side simple since
sing sister sit six size sky sleep slow small smile snow so some someone something sometimes son
song soon sound south space speak spend spring stand star start stay step still stone stood stop
storm story street strong student study such sugar summer sun sure swim take talk tall teacher tell
ten than thank that their them these they thing things think third this those though thought
thousand three through throw till time tired to today together told tomorrow tonight too took top
touch toward town train travel tree tried true try turn two uncle under understand until up upon us
use usual very village visit voice wait wake walk wall want war warm was wash watch water way we
wear week weight well went were west wet what when where whether which while who whole whose why
wide wife wild will wind window winter wish with without woman women wood word work world worry
worse would write wrong year yes yet you young your zero
"""

"""The windows of a platform's datasets, and what became of them since somebody took them: to keep a copy true for ever.

Belongs here: the names that users import. Does not belong here: code.

    crowd = Dataset("crowd", "https://weather.example", client="anna")
    events, _ = crowd.get_data_changes()
    for event in events:
        place = Path("copy", f"{event.window}.parquet")
        try:
            if event.is_removed:
                place.unlink(missing_ok=True)
            else:
                event.get_data().save(place, overwrite=True)
            event.confirm_data_received()
        except WindowsError as error:  # it is told again
            print(error)
"""

from ionbeam_client.windows.data import Data, DataAsync
from ionbeam_client.windows.errors import WindowsError
from ionbeam_client.windows.models import Dataset, WindowChange

__all__ = ["Data", "DataAsync", "Dataset", "WindowChange", "WindowsError"]
